# SPDX-License-Identifier: Apache-2.0
"""RetinaNet's two losses on the head's raw outputs."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from detectron_libra.geometry import Geometry
from detectron_libra.modeling.losses import BalancedL1Loss, SmoothL1Loss
from detectron_libra.modeling.matching import match_anchors_retinanet
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


def retinanet_losses(
    logits: Sequence[Tensor],
    deltas: Sequence[Tensor],
    anchors: Sequence[Tensor],
    targets: Targets,
    *,
    rule: RetinaNetRule,
    box_loss: BalancedL1Loss | SmoothL1Loss,
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
    positive = match.labels > 0
    bbox = box_loss.on_matches(
        deltas,
        all_anchors,
        targets.boxes,
        positive=positive,
        index=match.index,
        extent=rule.geometry.extent,
        normalizer=normalizer,
    )
    counts = {"num_fg": positive.sum().float(), "num_bg": background.sum().float()}
    return {"cls": cls, "bbox": bbox}, counts
