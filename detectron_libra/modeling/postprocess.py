# SPDX-License-Identifier: Apache-2.0
"""From raw outputs to detections in pixels of the original image."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from detectron_libra.geometry import Geometry
from detectron_libra.modeling.box_coding import clip_to_size, decode
from detectron_libra.modeling.layout import per_anchor
from detectron_libra.ops.nms import nms
from detectron_libra.structures import Batch, Detections, ImageMeta, Proposals


@dataclass(frozen=True)
class DetectionRule:
    """What counts as a detection.

    Attributes:
        score_threshold: lowest score.
        nms_threshold: IoU at which the lower-scoring box of the same class goes.
        detections_per_image: best detections kept.
        geometry: the box convention.
        box_clip: bound of the decoded log sizes.
    """

    score_threshold: float
    nms_threshold: float
    detections_per_image: int
    geometry: Geometry
    box_clip: float


def clip_to_original(boxes: Tensor, meta: ImageMeta, geometry: Geometry) -> Tensor:
    """Boxes (K, 4) in pixels of the original image, clipped to it."""
    size = torch.tensor([[meta.height, meta.width]], device=boxes.device)
    return clip_to_size(boxes[None], size, extent=geometry.extent)[0]


def best_detections(boxes: Tensor, scores: Tensor, classes: Tensor, rule: DetectionRule) -> Detections:
    """NMS per class, then the best of the image, sorted by score.

    Args:
        boxes: (K, 4) pixels; scores: (K,); classes: (K,) int64.
    """
    keep = nms(
        boxes,
        scores,
        classes,
        threshold=rule.nms_threshold,
        extent=rule.geometry.extent,
        inclusive=rule.geometry.nms_inclusive,
    )
    boxes, scores, classes = boxes[keep], scores[keep], classes[keep]
    order = scores.argsort(descending=True, stable=True)[: rule.detections_per_image]
    return Detections(boxes[order], scores[order], classes[order])


def retinanet_level(
    scores: Tensor, deltas: Tensor, anchors: Tensor, threshold: float, top_n: int, rule: DetectionRule
) -> tuple[Tensor, Tensor, Tensor]:
    """Candidates of one level of one image.

    Args:
        scores: (M, C') probabilities; deltas: (M, 4); anchors: (M, 4).

    Returns:
        boxes (k, 4) in the resized image, scores (k,), classes (k,).
    """
    flat = scores.flatten()
    above = (flat > threshold).nonzero().squeeze(1)
    best, order = flat[above].topk(min(top_n, above.numel()))
    chosen = above[order]
    anchor, label = chosen // scores.shape[1], chosen % scores.shape[1] + 1
    boxes = decode(
        deltas[anchor],
        anchors[anchor],
        extent=rule.geometry.extent,
        clip=rule.box_clip,
        clip_shrinking=rule.geometry.clip_shrinking,
    )
    return boxes, best, label


def retinanet_detections(
    logits: Sequence[Tensor],
    deltas: Sequence[Tensor],
    anchors: Sequence[Tensor],
    batch: Batch,
    *,
    num_classes: int,
    softmax: bool,
    pre_nms_top_n: int,
    rule: DetectionRule,
) -> list[Detections]:
    """Detections of each image of a batch.

    Args:
        logits: per level (N, A*C', H, W); deltas: per level (N, A*4, H, W); anchors: per level (H*W*A, 4).
        num_classes: classes without background.
        softmax: the logits have the background first.
        pre_nms_top_n: candidates per level and image; the coarsest level has no score threshold.

    Source: Detectron's core/test_retinanet.py.
    """
    found: list[list[tuple[Tensor, Tensor, Tensor]]] = [[] for _ in batch.metas]
    last = len(logits) - 1
    for i, (level_logits, level_deltas, level_anchors) in enumerate(
        zip(logits, deltas, anchors, strict=True)
    ):
        raw = per_anchor(level_logits, num_classes + softmax).float()
        scores = raw.softmax(-1)[..., 1:] if softmax else raw.sigmoid()
        boxes = per_anchor(level_deltas, 4).float()
        threshold = 0.0 if i == last else rule.score_threshold
        for n, candidates in enumerate(found):
            candidates.append(
                retinanet_level(scores[n], boxes[n], level_anchors, threshold, pre_nms_top_n, rule)
            )
    out = []
    for meta, candidates in zip(batch.metas, found, strict=True):
        boxes, scores, classes = (torch.cat(parts) for parts in zip(*candidates, strict=True))
        boxes = clip_to_original(boxes / meta.scale, meta, rule.geometry)
        out.append(best_detections(boxes, scores, classes, rule))
    return out


def fast_rcnn_detections(
    logits: Tensor,
    deltas: Tensor,
    proposals: Proposals,
    batch: Batch,
    *,
    box_weights: Sequence[float],
    rule: DetectionRule,
) -> list[Detections]:
    """Detections of each image of a batch, decoded in pixels of the original image.

    Args:
        logits: (N*P, C) with background first; deltas: (N*P, C, 4), or (N*P, 2, 4) when class-agnostic.
        proposals: the N*P boxes.
        box_weights: divisors of the deltas.

    Source: Detectron's core/test.py.
    """
    images, per_image = proposals.valid.shape
    probabilities = logits.softmax(-1).view(images, per_image, -1)
    deltas = deltas.view(images, per_image, -1, 4)
    out = []
    for n, meta in enumerate(batch.metas):
        allowed = (probabilities[n] > rule.score_threshold) & proposals.valid[n][:, None]
        allowed[:, 0] = False
        row, label = allowed.nonzero(as_tuple=True)
        column = label if deltas.shape[2] == probabilities.shape[2] else torch.ones_like(label)
        boxes = decode(
            deltas[n][row, column],
            proposals.boxes[n][row] / meta.scale,
            weights=box_weights,
            extent=rule.geometry.extent,
            clip=rule.box_clip,
            clip_shrinking=rule.geometry.clip_shrinking,
        )
        boxes = clip_to_original(boxes, meta, rule.geometry)
        out.append(best_detections(boxes, probabilities[n][row, label], label, rule))
    return out
