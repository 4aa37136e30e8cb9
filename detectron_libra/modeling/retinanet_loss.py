# SPDX-License-Identifier: Apache-2.0
"""RetinaNet's two losses on the head's raw outputs."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from detectron_libra.geometry import Geometry
from detectron_libra.modeling.box_coding import encode
from detectron_libra.modeling.layout import cat_levels, gather_rows
from detectron_libra.modeling.matching import AnchorMatch, match_anchors_retinanet
from detectron_libra.modeling.sampling import IoUSampling, sample_negatives
from detectron_libra.ops.focal_loss import focal_loss
from detectron_libra.structures import Targets


@dataclass(frozen=True)
class NegativeChoice:
    """IoU-balanced negatives for a dense detector."""

    per_image: int
    sampling: IoUSampling


@dataclass(frozen=True)
class RetinaNetRule:
    """Which anchors learn what.

    Attributes:
        positive, negative: IoU from which an anchor is positive, and below which it is background.
        alpha, gamma: the focal loss's weight of positives, and its exponent.
        num_classes: classes without background.
        softmax: focal loss over a softmax with background.
        geometry: the box convention.
        assignment: whose rule of low-quality matches holds: "detectron" or "continuous".
        crowd_threshold: share of an anchor inside a crowd from which it is ignored; None trains it as background.
        negatives: how many negatives per image, chosen by IoU; None takes every one, as the focal loss is meant.
    """

    positive: float
    negative: float
    alpha: float
    gamma: float
    num_classes: int
    softmax: bool
    geometry: Geometry
    assignment: str
    crowd_threshold: float | None = None
    negatives: NegativeChoice | None = None


def box_targets(
    anchors: Tensor, match: AnchorMatch, targets: Targets, extent: float
) -> tuple[Tensor, Tensor]:
    """Deltas to learn, and where.

    Returns:
        (N, M, 4) float32, 0 away from positives, and the (N, M) bool of positives.
    """
    positive = match.labels > 0
    boxes = gather_rows(targets.boxes, match.index)
    # An unmatched anchor is its own target: encoding stays finite and is 0.
    boxes = torch.where(positive[..., None], boxes, anchors)
    return encode(anchors, boxes, extent=extent), positive


def retinanet_losses(
    logits: Sequence[Tensor],
    deltas: Sequence[Tensor],
    anchors: Sequence[Tensor],
    targets: Targets,
    *,
    rule: RetinaNetRule,
    box_loss: nn.Module,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Class and box loss of a batch, each divided by the number of foreground anchors.

    Args:
        logits: per level (N, A*C', H, W); deltas: per level (N, A*4, H, W); anchors: per level (H*W*A, 4) pixels.
        targets: ground truth in pixels of the resized images.

    Returns:
        losses {"cls", "bbox"} and metrics {"num_fg", "num_bg"}, 0-d float32.

    Source: Detectron's modeling/retinanet_heads.py and roi_data/retinanet.py.
    """
    all_anchors = torch.cat(list(anchors))
    match = match_anchors_retinanet(
        all_anchors,
        targets,
        positive=rule.positive,
        negative=rule.negative,
        extent=rule.geometry.extent,
        rule=rule.assignment,
        crowd_threshold=rule.crowd_threshold,
    )
    normalizer = match.foreground.clamp(min=1).float()
    weight = None
    background = match.labels == 0
    if rule.negatives is not None:
        background = sample_negatives(
            match.iou, background, rule.negatives.per_image, rule.negatives.sampling, high=rule.negative
        )
        weight = ((match.labels > 0) | background).float()
    cls = focal_loss(
        logits,
        match.labels,
        alpha=rule.alpha,
        gamma=rule.gamma,
        num_classes=rule.num_classes,
        weight=weight,
        softmax=rule.softmax,
        normalizer=normalizer,
    )
    target, positive = box_targets(all_anchors, match, targets, rule.geometry.extent)
    pred = cat_levels(deltas, 4)
    mask = positive[..., None].expand_as(pred).to(pred.dtype)
    bbox = box_loss(pred, target, weight=mask, reduction="mean", normalizer=normalizer)
    counts = {"num_fg": positive.sum().float(), "num_bg": background.sum().float()}
    return {"cls": cls, "bbox": bbox}, counts
