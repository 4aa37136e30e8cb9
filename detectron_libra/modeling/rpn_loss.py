# SPDX-License-Identifier: Apache-2.0
"""The region proposal network's two losses."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detectron_libra.geometry import Geometry
from detectron_libra.modeling.box_coding import encode
from detectron_libra.modeling.layout import cat_levels, gather_rows
from detectron_libra.modeling.matching import RPNMatch, inside_image, label_anchors_rpn
from detectron_libra.modeling.sampling import sample_rpn
from detectron_libra.modeling.slots import AnchorAssigner, DenseOutputs
from detectron_libra.structures import Targets


@dataclass(frozen=True)
class RPNRule:
    """Which anchors learn what.

    Attributes:
        positive, negative: IoU from which an anchor is positive, and below which it is background.
        straddle: pixels an anchor may leave the image by; negative keeps every anchor.
        batch_size: anchors drawn per image.
        fg_fraction: largest share of positives among them.
        geometry: the box convention.
        assignment: whose rules of matching and sampling hold: "detectron" or "continuous".
        min_positive: IoU from which the best anchor of a ground truth is positive.
        crowd_threshold: share of an anchor inside a crowd from which it is ignored; None trains it as background.
        mean_over_labelled: objectness is divided by the anchors that were drawn (Detectron on one level), else by
            those asked for (Detectron on a pyramid, where a fixed number makes the levels add up).
        assigner: what names the candidates in place of the thresholds of IoU; None: they do.
    """

    positive: float
    negative: float
    straddle: float
    batch_size: int
    fg_fraction: float
    geometry: Geometry
    assignment: str
    min_positive: float = 0.0
    crowd_threshold: float | None = None
    mean_over_labelled: bool = False
    assigner: AnchorAssigner | None = None


def match_anchors(outputs: DenseOutputs, targets: Targets, sizes: Tensor, rule: RPNRule) -> RPNMatch:
    """Candidates for the sample that is learned from; sizes: (N, 2) height and width before padding."""
    anchors = outputs.all_anchors
    if rule.assigner is not None:
        found = rule.assigner(outputs, targets, inside_image(anchors, sizes, rule.straddle))
        return RPNMatch(found.state == 1, found.state == 0, found.index, found.iou)
    return label_anchors_rpn(
        anchors,
        targets,
        sizes,
        positive=rule.positive,
        negative=rule.negative,
        straddle=rule.straddle,
        extent=rule.geometry.extent,
        rule=rule.assignment,
        min_positive=rule.min_positive,
        crowd_threshold=rule.crowd_threshold,
    )


def rpn_losses(
    logits: Sequence[Tensor],
    deltas: Sequence[Tensor],
    anchors: Sequence[Tensor],
    targets: Targets,
    sizes: Tensor,
    *,
    rule: RPNRule,
    box_loss: nn.Module,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Objectness and box loss of a batch.

    Objectness is divided by the number of anchors asked for or drawn (``rule``), the boxes of an image by the number
    it got.

    Args:
        logits: per level (N, A, H, W); deltas: per level (N, A*4, H, W); anchors: per level (H*W*A, 4) pixels.
        targets: ground truth; sizes: (N, 2) height and width before padding.

    Returns:
        losses {"rpn_cls", "rpn_bbox"} and metrics {"rpn_fg"}, 0-d float32.

    Source: Detectron's roi_data/rpn.py, modeling/FPN.py and modeling/rpn_heads.py.
    """
    outputs = DenseOutputs(logits, deltas, anchors)
    all_anchors = outputs.all_anchors
    match = match_anchors(outputs, targets, sizes, rule)
    labels = sample_rpn(
        match,
        batch_size=rule.batch_size,
        fg_fraction=rule.fg_fraction,
        with_replacement=rule.assignment == "detectron",
    )
    images = labels.shape[0]
    chosen, positive = labels >= 0, labels > 0
    score = cat_levels(logits, 1).squeeze(-1)
    cls = F.binary_cross_entropy_with_logits(score, positive.float(), weight=chosen.float(), reduction="sum")
    boxes = torch.where(positive[..., None], gather_rows(targets.boxes, match.index), all_anchors)
    target = encode(all_anchors, boxes, extent=rule.geometry.extent)
    pred = cat_levels(deltas, 4)
    per_image = positive / chosen.sum(1, keepdim=True).clamp(min=1)
    bbox = box_loss(pred, target, weight=per_image[..., None].expand_as(pred).to(pred.dtype), reduction="sum")
    divisor = chosen.sum().clamp(min=1) if rule.mean_over_labelled else rule.batch_size * images
    losses = {"rpn_cls": cls / divisor, "rpn_bbox": bbox / images}
    return losses, {"rpn_fg": positive.sum().float() / images}
