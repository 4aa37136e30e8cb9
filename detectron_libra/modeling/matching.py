# SPDX-License-Identifier: Apache-2.0
"""Which box learns from which ground truth, before anything is sampled.

Two families of rules exist: "detectron" (the counts and ties of released Detectron) and "continuous"
(mmdetection's MaxIoUAssigner). They differ in who owns a box that is kept only because no other one fits
a ground truth better. Images have padded ground truth, rows of which are valid or not; ``extent`` as in
``geometry``. An image without ground truth is all background.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from detectron_libra.modeling.assignment import Assignment, assign, inside_crowd, invert, reaches
from detectron_libra.modeling.own_match import best_overlap
from detectron_libra.ops.match_boxes import match_boxes, max_overlap_with
from detectron_libra.structures import Targets

RULES = ("detectron", "continuous")


@dataclass(frozen=True)
class AnchorMatch:
    """What a one-stage detector's anchors learn.

    Attributes:
        labels: (N, M) int64, class of a positive, 0 background, -1 ignored.
        index: (N, M) int64, ground truth whose box a positive learns.
        iou: (N, M) float32, largest IoU with a ground truth.
        foreground: 0-d float32, the number that losses are divided by.
    """

    labels: Tensor
    index: Tensor
    iou: Tensor
    foreground: Tensor


@dataclass(frozen=True)
class RPNMatch:
    """What the proposal network's anchors may learn; one may be in both sets under the rule "detectron".

    Attributes:
        foreground, background: (N, M) bool, candidates.
        index: (N, M) int64, ground truth whose box a positive learns.
        iou: (N, M) float32, largest IoU with a ground truth.
    """

    foreground: Tensor
    background: Tensor
    index: Tensor
    iou: Tensor


@dataclass(frozen=True)
class ProposalMatch:
    """Overlap of proposals with ground truth.

    Attributes:
        iou: (N, P) float32, largest IoU; -1 for proposals that must not be sampled.
        index: (N, P) int64, that ground truth, whose class a positive learns.
        box_index: (N, P) int64, ground truth whose box a positive learns.
        num_gt: G, rows of padded ground truth.
    """

    iou: Tensor
    index: Tensor
    box_index: Tensor
    num_gt: int


def check_rule(rule: str) -> None:
    """Raises ValueError for a rule that does not exist."""
    if rule not in RULES:
        raise ValueError(f"rule is {rule!r}; use one of {', '.join(RULES)}")


def inside_image(boxes: Tensor, sizes: Tensor, straddle: float) -> Tensor | None:
    """(N, M) bool: boxes (M, 4) that leave sizes (N, 2) by at most ``straddle`` pixels; None if negative."""
    if straddle < 0:
        return None
    before = (boxes[:, :2] >= -straddle).all(1)
    return before & (boxes[:, 2:] < sizes.flip(1)[:, None] + straddle).all(2)


def any_missed(anchors: Tensor, targets: Targets, candidates: Tensor | None, extent: float) -> Tensor:
    """(N, 1) bool: images with a ground truth that no anchor (M, 4) overlaps; ``candidates`` (N, M) or all."""
    images = len(targets.boxes)
    if candidates is None:
        candidates = torch.ones(images, len(anchors), dtype=torch.bool, device=anchors.device)
    boxes = anchors.expand(images, -1, -1)
    covered = max_overlap_with(targets.boxes, boxes, candidates, extent=extent) > 0
    return (targets.valid & ~covered).any(1, keepdim=True)


def gather_classes(targets: Targets, index: Tensor) -> Tensor:
    """Class (N, M) of the ground truth that ``index`` (N, M) names; 0 where no image has any."""
    if targets.classes.shape[1] == 0:
        return torch.zeros_like(index)
    return targets.classes.gather(1, index)


def labelled(found: Assignment, targets: Targets) -> AnchorMatch:
    """An assignment with the classes of its positives, whose number, at least 1, is what losses are divided by."""
    labels = torch.where(found.state == 1, gather_classes(targets, found.index), found.state)
    return AnchorMatch(labels, found.index, found.iou, (labels > 0).sum().clamp(min=1).float())


@torch.no_grad()
def match_anchors_retinanet(
    anchors: Tensor,
    targets: Targets,
    *,
    positive: float,
    negative: float,
    extent: float,
    rule: str = "detectron",
    crowd_threshold: float | None = None,
) -> AnchorMatch:
    """Labels of RetinaNet's anchors and the number its losses are divided by.

    Rule "detectron": the best anchors of a ground truth get the class of their own best ground truth, and
    stay positive only from IoU ``negative`` on; losses are divided by the positives counted before that,
    plus one per image. Rule "continuous": they stay positive of the ground truth whose best they are, at
    any IoU; losses are divided by the number of positives, at least 1.

    Args:
        anchors: (M, 4) float32 pixels, all levels.
        targets: ground truth in pixels of the resized images.
        positive, negative: IoU from which an anchor is positive, and below which it is background.
        extent: pixels added to x2 - x1 to get a width.
        crowd_threshold: share of an anchor inside a crowd above which it is ignored unless positive; None
            trains it as background, as Detectron does.

    Source: Detectron's roi_data/retinanet.py; mmdetection's RetinaNet configuration.
    """
    check_rule(rule)
    if rule == "continuous":
        found = assign(
            anchors,
            targets,
            positive=positive,
            negative=negative,
            crowd_threshold=crowd_threshold,
            extent=extent,
        )
        return labelled(found, targets)
    best = match_boxes(anchors, targets.boxes, targets.valid, extent=extent)
    matched = reaches(best.iou, positive) | (best.best_for >= 0)
    foreground = (matched.sum() + len(matched)).float()
    background = best.iou < negative
    labels = torch.where(matched & ~background, gather_classes(targets, best.index), -1)
    crowded = inside_crowd(anchors, targets, crowd_threshold, extent)
    background = background if crowded is None else background & ~crowded
    return AnchorMatch(torch.where(background, 0, labels), best.index, best.iou, foreground)


@torch.no_grad()
def label_anchors_rpn(
    anchors: Tensor,
    targets: Targets,
    sizes: Tensor,
    *,
    positive: float,
    negative: float,
    straddle: float,
    extent: float,
    rule: str = "detectron",
    min_positive: float = 0.0,
    crowd_threshold: float | None = None,
) -> RPNMatch:
    """Candidates for the sample that the region proposal network learns from.

    Rule "detectron": every anchor below ``negative`` is a candidate for background, even when it is the
    best of a ground truth and so one for foreground too; and a ground truth that none overlaps makes all of its
    image candidates for foreground, since all are its best, with 0. Rule "continuous": none is both.

    Args:
        anchors: (M, 4) float32 pixels, all levels.
        targets: ground truth; sizes: (N, 2) height and width before padding, pixels.
        positive, negative: IoU from which an anchor is positive, and below which it is background.
        straddle: pixels an anchor may leave the image by to take part; negative: all do.
        extent: pixels added to x2 - x1 to get a width.
        min_positive: IoU that the best anchor of a ground truth must have to be positive.
        crowd_threshold: share of an anchor inside a crowd above which it is no background; None: crowds are.

    Source: Detectron's roi_data/rpn.py.
    """
    check_rule(rule)
    candidates = inside_image(anchors, sizes, straddle)
    if rule == "continuous":
        found = assign(
            anchors,
            targets,
            positive=positive,
            negative=negative,
            min_positive=min_positive,
            crowd_threshold=crowd_threshold,
            candidates=candidates,
            extent=extent,
        )
        return RPNMatch(found.state == 1, found.state == 0, found.index, found.iou)
    best = match_boxes(
        anchors,
        targets.boxes,
        targets.valid,
        extent=extent,
        min_best_iou=min_positive,
        candidates=candidates,
    )
    missed = any_missed(anchors, targets, candidates, extent)
    background = best.iou < negative
    for unfit in (inside_crowd(anchors, targets, crowd_threshold, extent), invert(candidates)):
        background = background if unfit is None else background & ~unfit
    foreground = (
        reaches(best.iou, positive)
        | (best.best_for >= 0)
        | (missed if candidates is None else missed & candidates)
    )
    return RPNMatch(foreground, background, best.index, best.iou)


@torch.no_grad()
def match_proposals(
    boxes: Tensor,
    valid: Tensor,
    targets: Targets,
    *,
    threshold: float,
    extent: float,
    rule: str = "detectron",
    crowd_threshold: float | None = None,
    own: int = 0,
) -> ProposalMatch:
    """Overlap of each proposal with ground truth, as the second stage samples by it.

    Rule "detectron": a proposal can take the class of a crowd; its box is that of the best single object all the
    same. Rule "continuous": crowds match nothing.

    Args:
        boxes: (N, P, 4) float32 pixels; valid: (N, P) bool.
        targets: ground truth of the batch.
        threshold: IoU from which a proposal is foreground.
        extent: pixels added to x2 - x1 to get a width.
        crowd_threshold: share of a proposal inside a crowd above which it is left out (rule "detectron"), or is no
            background ("continuous"); None: crowds are background.
        own: the last so many boxes of an image are all its ground truth, row by row; 0: none are.

    Source: Detectron's roi_data/fast_rcnn.py, datasets/json_dataset.py and datasets/roidb.py.
    """
    check_rule(rule)
    assert own in (0, targets.boxes.shape[1]), own
    best, box_index = best_overlap(boxes, targets.boxes, targets.valid, own=own, extent=extent)
    index = box_index
    if rule == "detectron":
        best, index = best_overlap(boxes, targets.boxes, targets.classes > 0, own=own, extent=extent)
    unfit = ~valid
    crowded = inside_crowd(boxes, targets, crowd_threshold, extent)
    if crowded is not None:
        unfit = unfit | (crowded if rule == "detectron" else crowded & (best < threshold))
    iou = torch.where(unfit, -1.0, best)
    return ProposalMatch(iou, index, box_index, targets.boxes.shape[1])
