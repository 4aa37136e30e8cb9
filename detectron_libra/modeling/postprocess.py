# SPDX-License-Identifier: Apache-2.0
"""From raw outputs to scored candidates in pixels of the original image."""

from collections.abc import Sequence

import torch
from torch import Tensor

from detectron_libra.geometry import Geometry
from detectron_libra.modeling.box_coding import clip_to_size, decode
from detectron_libra.modeling.layout import per_anchor
from detectron_libra.modeling.suppression import Candidates, DetectionRule
from detectron_libra.structures import Batch, ImageMeta, Proposals


def in_original(boxes: Tensor, meta: ImageMeta, geometry: Geometry) -> Tensor:
    """Boxes of an image as it was shown, clipped to it, and taken back to the original.

    Args:
        boxes: (K, 4) pixels of the image as shown, before it was scaled.
    """
    boxes = clip_to_size(boxes[None], _row(meta.shown_size, boxes), extent=geometry.extent)[0]
    if not (meta.flip_x or meta.flip_y or meta.stretch != 1):
        return boxes
    boxes = meta.to_original(boxes, extent=geometry.extent)
    # the last pixel of a stretched image lies behind that of the original
    return clip_to_size(boxes[None], _row((meta.height, meta.width), boxes), extent=geometry.extent)[0]


def _row(size: tuple[int, int], like: Tensor) -> Tensor:
    """(1, 2) int64 on the device of ``like``."""
    return torch.tensor([size], device=like.device)


def retinanet_level(
    scores: Tensor, deltas: Tensor, anchors: Tensor, threshold: float, top_n: int, rule: DetectionRule
) -> Candidates:
    """Candidates of one level of one image, their boxes in pixels of the resized image.

    Args:
        scores: (M, C') probabilities; deltas: (M, 4); anchors: (M, 4).
    """
    flat = scores.flatten()
    above = (flat > threshold).nonzero().squeeze(1)
    best, order = flat[above].topk(min(top_n, above.numel()))
    chosen = above[order]
    anchor, label = chosen // scores.shape[1], chosen % scores.shape[1] + 1
    return Candidates(_refined(anchors[anchor], deltas[anchor], rule), best, label)


def _refined(
    boxes: Tensor, deltas: Tensor, rule: DetectionRule, weights: Sequence[float] = (1, 1, 1, 1)
) -> Tensor:
    """What deltas (K, 4) make of boxes (K, 4), or the boxes themselves where the rule says so."""
    if not rule.regress:
        return boxes
    return decode(
        deltas,
        boxes,
        weights=weights,
        extent=rule.geometry.extent,
        clip=rule.box_clip,
        clip_shrinking=rule.geometry.clip_shrinking,
    )


def retinanet_candidates(
    logits: Sequence[Tensor],
    deltas: Sequence[Tensor],
    anchors: Sequence[Tensor],
    batch: Batch,
    *,
    num_classes: int,
    softmax: bool,
    pre_nms_top_n: int,
    rule: DetectionRule,
) -> list[Candidates]:
    """Candidates of each image of a batch.

    Args:
        logits: per level (N, A*C', H, W); deltas: per level (N, A*4, H, W); anchors: per level (H*W*A, 4).
        num_classes: classes without background.
        softmax: the logits have the background first.
        pre_nms_top_n: candidates per level and image.

    Source: Detectron's core/test_retinanet.py.
    """
    found: list[list[Candidates]] = [[] for _ in batch.metas]
    last = len(logits) - 1
    for i, (level_logits, level_deltas, level_anchors) in enumerate(
        zip(logits, deltas, anchors, strict=True)
    ):
        raw = per_anchor(level_logits, num_classes + softmax).float()
        scores = raw.softmax(-1)[..., 1:] if softmax else raw.sigmoid()
        boxes = per_anchor(level_deltas, 4).float()
        threshold = 0.0 if i == last and rule.geometry.keep_coarsest else rule.score_threshold
        for n, candidates in enumerate(found):
            candidates.append(
                retinanet_level(scores[n], boxes[n], level_anchors, threshold, pre_nms_top_n, rule)
            )
    out = []
    for meta, candidates in zip(batch.metas, found, strict=True):
        boxes, scores, classes = (torch.cat(parts) for parts in zip(*candidates, strict=True))
        boxes = in_original(boxes / meta.scale, meta, rule.geometry)
        out.append(Candidates(boxes, scores, classes))
    return out


def fast_rcnn_candidates(
    probabilities: Tensor,
    deltas: Tensor,
    proposals: Proposals,
    batch: Batch,
    *,
    box_weights: Sequence[float],
    rule: DetectionRule,
    every: bool = False,
) -> list[Candidates]:
    """Candidates of each image of a batch, decoded in pixels of the image as it was shown, before scaling.

    Args:
        probabilities: (N*P, C) with background first; deltas: (N*P, C, 4), or (N*P, 2, 4) when class-agnostic.
        proposals: the N*P boxes.
        box_weights: divisors of the deltas.
        every: low scores too, so that the same proposals give the same rows whatever the image looks like.

    Source: Detectron's core/test.py.
    """
    images, per_image = proposals.valid.shape
    probabilities = probabilities.view(images, per_image, -1)
    deltas = deltas.view(images, per_image, -1, 4)
    out = []
    for n, meta in enumerate(batch.metas):
        allowed = (probabilities[n] > rule.score_threshold) | every
        allowed &= proposals.valid[n][:, None]
        allowed[:, 0] = False
        row, label = allowed.nonzero(as_tuple=True)
        column = label if deltas.shape[2] == probabilities.shape[2] else torch.ones_like(label)
        boxes = _refined(proposals.boxes[n][row] / meta.scale, deltas[n][row, column], rule, box_weights)
        boxes = in_original(boxes, meta, rule.geometry)
        out.append(Candidates(boxes, probabilities[n][row, label], label))
    return out
