# SPDX-License-Identifier: Apache-2.0
"""What a detector samples its training from: anchors or proposals, the ground truth of each, and what it says of them.

Matching, sampling and encoding are those of the training; only what is learned from is looked at here, not learned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from detectron_libra.modeling.box_coding import encode
from detectron_libra.modeling.detectors.fast_rcnn import FastRCNN
from detectron_libra.modeling.detectors.faster_rcnn import FasterRCNN
from detectron_libra.modeling.detectors.proposing import Proposed, ProposingTrunk
from detectron_libra.modeling.detectors.regions import RegionHead, with_ground_truth
from detectron_libra.modeling.detectors.retinanet import RetinaNet
from detectron_libra.modeling.layout import cat_levels, gather_rows
from detectron_libra.modeling.retinanet_loss import RetinaNetRule, assign_anchors
from detectron_libra.modeling.rpn_loss import RPNRule, match_anchors
from detectron_libra.modeling.sampling import sample_rois, sample_rpn
from detectron_libra.modeling.slots import DenseOutputs
from detectron_libra.ops.roi_align.reference import roi_levels
from detectron_libra.structures import Batch, Proposals

#: Negatives of a dense detector that are compared, per image: as many as Detectron's second stage samples.
DENSE_NEGATIVES = 512

Detector = RetinaNet | ProposingTrunk | FastRCNN


@dataclass(frozen=True)
class Assigned:
    """M boxes per image of a batch.

    Attributes:
        iou: (N, M) float32, largest IoU with a ground truth; -1 where a box takes no part.
        positive, background: (N, M) bool.
        drawn: (N, M) bool, positives that one step learns from.
        index: (N, M) int64, ground truth of a positive.
        objectness: (N, M) float32 in 0..1, how sure the detector is that there is an object.
        level: (M) or (N, M) int64, position of the level that a box belongs to.
        residuals: (K, 4) float32, encoded box minus its target, of the positives that learn a box.
        negatives: (N,) int64, how many negatives one step draws.
        low, high: negatives have an IoU in [low, high).
    """

    iou: Tensor
    positive: Tensor
    background: Tensor
    drawn: Tensor
    index: Tensor
    objectness: Tensor
    level: Tensor
    residuals: Tensor
    negatives: Tensor
    low: float
    high: float


@torch.no_grad()
def assign_boxes(model: Detector, levels: Sequence[Tensor], batch: Batch) -> dict[str, Assigned]:
    """What each stage of a detector samples from, by its kind: ``anchors``, ``proposals``; the last one decides.

    Args:
        model: in train mode, which decides how many proposals there are.
        levels: the features that its heads see.
        batch: with targets, and with proposals for Fast R-CNN.
    """
    if isinstance(model, RetinaNet):
        return {"anchors": of_retinanet(model, levels, batch)}
    if isinstance(model, FastRCNN):
        assert batch.proposals is not None, "a batch of Fast R-CNN has proposals"
        return {"proposals": of_regions(model.regions, levels, batch.proposals, batch)}
    proposed = model.score_anchors(levels)
    stages = {"anchors": of_rpn(model, proposed, batch)}
    if isinstance(model, FasterRCNN):
        proposals = model.choose_proposals(proposed, batch)
        stages["proposals"] = of_regions(model.regions, levels, proposals, batch)
    return stages


def of_retinanet(model: RetinaNet, levels: Sequence[Tensor], batch: Batch) -> Assigned:
    """RetinaNet's anchors; where it learns from every negative, DENSE_NEGATIVES of them are compared."""
    assert batch.targets is not None, "a training batch has targets"
    rule = model.rule
    logits, deltas, anchors = model.score_anchors(levels)
    outputs = DenseOutputs(logits, deltas, anchors)
    match = assign_anchors(outputs, batch.targets, rule)
    positive = match.labels > 0
    scores = cat_levels(logits, rule.num_classes + int(rule.softmax))
    objectness = 1 - scores.softmax(-1)[..., 0] if rule.softmax else scores.sigmoid().amax(-1)
    count = rule.negatives.per_image if rule.negatives else DENSE_NEGATIVES
    return Assigned(
        match.iou,
        positive,
        match.labels == 0,
        positive,
        match.index,
        objectness,
        level_of(anchors),
        residuals_of(
            cat_levels(deltas, 4),
            outputs.all_anchors,
            batch.targets.boxes,
            match.index,
            positive,
            rule.geometry.extent,
        ),
        torch.full_like(match.index[:, 0], count),
        0.0,
        highest_negative(rule),
    )


def of_rpn(model: ProposingTrunk, proposed: Proposed, batch: Batch) -> Assigned:
    """The anchors of a region proposal network."""
    assert batch.targets is not None, "a training batch has targets"
    rule = model.rpn_rule
    outputs = DenseOutputs(*proposed)
    match = match_anchors(outputs, batch.targets, batch.sizes, rule)
    labels = sample_rpn(
        match,
        batch_size=rule.batch_size,
        fg_fraction=rule.fg_fraction,
        with_replacement=rule.assignment == "detectron",
    )
    deltas = cat_levels(proposed.deltas, 4)
    return Assigned(
        match.iou,
        match.foreground,
        match.background & ~match.foreground,
        labels > 0,
        match.index,
        cat_levels(proposed.logits, 1).squeeze(-1).sigmoid(),
        level_of(proposed.anchors),
        residuals_of(
            deltas, outputs.all_anchors, batch.targets.boxes, match.index, labels > 0, rule.geometry.extent
        ),
        rule.batch_size - (labels > 0).sum(1),
        0.0,
        highest_negative(rule),
    )


def of_regions(head: RegionHead, levels: Sequence[Tensor], proposals: Proposals, batch: Batch) -> Assigned:
    """The proposals of a second stage, and the ground truth among them; every one is classified."""
    assert batch.targets is not None, "a training batch has targets"
    s, p, extent = head.sampling, head.pooling, head.detection.geometry.extent
    proposals = with_ground_truth(proposals, batch.targets)
    per_image = batch.scales[:, None, None]
    original = replace(batch.targets, boxes=batch.targets.boxes / per_image)
    match = head.match(proposals, original, batch.scales)
    logits, deltas = head.classify(levels, proposals.boxes)
    sample = sample_rois(match, s, targets=batch.targets, logits=lambda: logits.view(*match.index.shape, -1))
    # Added, since a row of padding may name a proposal that was drawn too.
    drawn = torch.zeros_like(match.index).scatter_add(1, sample.index, sample.positive.long()) > 0
    positive = match.iou >= s.fg_thresh
    classes = gather_rows(batch.targets.classes[..., None], match.index).squeeze(-1)
    column = classes.flatten() if deltas.shape[1] == logits.shape[1] else torch.ones_like(classes.flatten())
    pred = deltas.gather(1, column[:, None, None].expand(-1, 1, 4)).view(*classes.shape, 4)
    return Assigned(
        match.iou,
        positive,
        (match.iou >= max(s.bg_lo, 0.0)) & (match.iou < s.bg_hi) & ~positive,
        drawn,
        match.index,
        1 - head.class_loss.probabilities(logits)[:, 0].view_as(match.iou),
        roi_levels(
            proposals.boxes.flatten(0, 1), p.levels, p.canonical_scale, p.canonical_level, p.min_level, extent
        ).view_as(match.index),
        residuals_of(
            pred,
            proposals.boxes / per_image,
            original.boxes,
            match.box_index,
            drawn & (match.iou >= head.box_threshold),
            extent,
            head.box_weights,
        ),
        s.batch_size - sample.positive.sum(1),
        max(s.bg_lo, 0.0),
        s.bg_hi,
    )


def highest_negative(rule: RetinaNetRule | RPNRule) -> float:
    """IoU that negative anchors stay below."""
    return rule.negative if rule.assigner is None else rule.assigner.highest_negative


def level_of(anchors: Sequence[Tensor]) -> Tensor:
    """(M,) int64, position of the level of each anchor."""
    device = anchors[0].device
    return torch.cat([torch.full((len(a),), k, device=device) for k, a in enumerate(anchors)])


def residuals_of(
    pred: Tensor,
    boxes: Tensor,
    truth: Tensor,
    index: Tensor,
    chosen: Tensor,
    extent: float,
    weights: Sequence[float] = (1, 1, 1, 1),
) -> Tensor:
    """Encoded boxes minus their targets (K, 4) of the ``chosen`` (N, M).

    Args:
        pred: (N, M, 4) deltas; boxes: (M, 4) or (N, M, 4) pixels; truth: (N, G, 4) pixels.
        index: (N, M) int64, ground truth of each box; weights: factors of the deltas.
    """
    matched = gather_rows(truth, index)
    target = encode(boxes.expand_as(matched)[chosen], matched[chosen], weights=weights, extent=extent)
    return pred[chosen].float() - target
