# SPDX-License-Identifier: Apache-2.0
"""From the region proposal network's raw outputs to a fixed number of candidate boxes per image."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from detectron_libra.geometry import Geometry
from detectron_libra.modeling.box_coding import clip_to_size, decode
from detectron_libra.modeling.layout import gather_rows, per_anchor
from detectron_libra.ops.nms import nms
from detectron_libra.structures import Proposals

NO_SCORE = -1.0  # below every sigmoid, so that padding sorts last


@dataclass(frozen=True)
class ProposalRule:
    """How many proposals are kept, and which.

    Attributes:
        pre_nms_top_n: best-scoring boxes kept per level and image before NMS.
        post_nms_top_n: boxes kept per level after NMS, and again of all levels together.
        nms_threshold: IoU above which the lower-scoring box goes; 0 or less switches NMS off.
        min_size: shortest side in pixels of the original image.
        per_batch: the last cut is over the images of the batch together, as Detectron trains.
        geometry: the box convention.
        box_clip: bound of the decoded log sizes.
        frame_stride: boxes may reach to the next multiple of it in pixels beyond the image, which is where Detectron's
            padding ends at test time; 1: to the image's border.
    """

    pre_nms_top_n: int
    post_nms_top_n: int
    nms_threshold: float
    min_size: float
    per_batch: bool
    geometry: Geometry
    box_clip: float
    frame_stride: int = 1


def best_of_level(
    logits: Tensor, deltas: Tensor, anchors: Tensor, sizes: Tensor, scales: Tensor, rule: ProposalRule
) -> tuple[Tensor, Tensor]:
    """The best boxes of one level, decoded and clipped; those too small get ``NO_SCORE``.

    Args:
        logits: (N, A, H, W); deltas: (N, A*4, H, W); anchors: (H*W*A, 4) pixels.
        sizes: (N, 2) height and width; scales: (N,) resized / original.

    Returns:
        boxes (N, k, 4) and scores (N, k), best first.
    """
    scores = per_anchor(logits, 1).squeeze(-1).float().sigmoid()
    scores, index = scores.topk(min(rule.pre_nms_top_n, scores.shape[1]), dim=1)
    chosen = gather_rows(per_anchor(deltas, 4).float(), index)
    boxes = decode(
        chosen,
        anchors[index],
        extent=rule.geometry.extent,
        clip=rule.box_clip,
        clip_shrinking=rule.geometry.clip_shrinking,
    )
    boxes = clip_to_size(boxes, sizes, extent=rule.geometry.extent)
    # A degenerate or non-finite box fails both comparisons and leaves with the small ones.
    side = (boxes[..., 2:] - boxes[..., :2]) / scales[:, None, None] + rule.geometry.extent
    centre = (boxes[..., 2:] + boxes[..., :2] + rule.geometry.extent) / 2
    large = ((side >= max(rule.min_size, rule.geometry.extent)) & (side > 0)).all(-1)
    inside = (centre < sizes.flip(1)[:, None]).all(-1)
    keep = large & inside
    return torch.where(keep[..., None], boxes, 0), torch.where(keep, scores, NO_SCORE)


def suppress(boxes: Tensor, scores: Tensor, rule: ProposalRule) -> Tensor:
    """NMS of every image and level at once.

    Args:
        boxes: (L, N, k, 4), scores: (L, N, k), padded per level.

    Returns:
        (L, N, k) scores, ``NO_SCORE`` where a box goes.
    """
    keep = scores > NO_SCORE
    if rule.nms_threshold > 0:
        groups = torch.arange(scores[..., 0].numel(), device=scores.device).view(*scores.shape[:2], 1)
        keep = keep & nms(
            boxes.reshape(-1, 4),
            scores.reshape(-1),
            groups.expand_as(scores).reshape(-1),
            threshold=rule.nms_threshold,
            extent=rule.geometry.extent,
            inclusive=rule.geometry.nms_inclusive,
        ).view_as(keep)
    keep = keep & (keep.cumsum(-1) <= rule.post_nms_top_n)  # each level comes sorted by score
    return torch.where(keep, scores, NO_SCORE)


@torch.no_grad()
def make_proposals(
    logits: Sequence[Tensor],
    deltas: Sequence[Tensor],
    anchors: Sequence[Tensor],
    sizes: Tensor,
    scales: Tensor,
    rule: ProposalRule,
) -> Proposals:
    """Proposals of a batch, best first in each image; no gradient passes through them.

    Args:
        logits: per level (N, A, H, W); deltas: per level (N, A*4, H, W); anchors: per level (H*W*A, 4) pixels.
        sizes: (N, 2) int64 height and width before padding; scales: (N,) float32 resized / original.
        rule: the numbers to keep.

    Returns:
        Proposals padded to min(post_nms_top_n, all candidates).

    Source: Detectron's ops/generate_proposals.py and collect_and_distribute_fpn_rpn_proposals.py.
    """
    sizes = (sizes + rule.frame_stride - 1) // rule.frame_stride * rule.frame_stride
    levels = [
        best_of_level(*level, sizes, scales, rule) for level in zip(logits, deltas, anchors, strict=True)
    ]
    widths = [s.shape[1] for _, s in levels]
    width, most = max(widths), min(rule.post_nms_top_n, sum(widths))
    pad = torch.nn.functional.pad
    boxes = torch.stack([pad(b, (0, 0, 0, width - b.shape[1])) for b, _ in levels])
    scores = torch.stack([pad(s, (0, width - s.shape[1]), value=NO_SCORE) for _, s in levels])
    scores = suppress(boxes, scores, rule)
    boxes = boxes.transpose(0, 1).flatten(1, 2)
    scores = scores.transpose(0, 1).flatten(1, 2)
    if rule.per_batch and scores.shape[0] > 1:
        flat = scores.flatten()
        top = flat.topk(min(rule.post_nms_top_n, flat.numel())).indices
        scores = torch.full_like(flat, NO_SCORE).scatter(0, top, flat[top]).view_as(scores)
    scores, order = scores.topk(most, dim=1)
    return Proposals(gather_rows(boxes, order), scores, scores > NO_SCORE)
