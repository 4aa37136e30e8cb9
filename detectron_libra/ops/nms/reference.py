# SPDX-License-Identifier: Apache-2.0
"""Suppression, soft suppression and voting in plain PyTorch: the definitions that the kernels must match."""

import torch
from torch import Tensor

#: Their places are the numbers that the kernels take.
SOFT_METHODS = ("linear", "gaussian", "hard")
VOTE_METHODS = ("ID", "TEMP_AVG", "AVG", "IOU_AVG", "GENERALIZED_AVG", "QUASI_SUM")
#: Pairs of boxes that voting holds at a time.
_PAIRS = 1 << 20


def _iou(a: Tensor, b: Tensor, extent: float) -> Tensor:
    """IoU of boxes (..., 4), broadcast; NaN where a coordinate is, or where neither box has an area."""
    ax1, ay1, ax2, ay2 = a.unbind(-1)
    bx1, by1, bx2, by2 = b.unbind(-1)
    width = torch.minimum(ax2, bx2) - torch.maximum(ax1, bx1) + extent
    height = torch.minimum(ay2, by2) - torch.maximum(ay1, by1) + extent
    overlap = torch.where((width > 0) & (height > 0), width * height, torch.zeros_like(width))
    area_a = (ax2 - ax1 + extent) * (ay2 - ay1 + extent)
    area_b = (bx2 - bx1 + extent) * (by2 - by1 + extent)
    return overlap / (area_a + area_b - overlap)


def nms_in_order_reference(
    boxes: Tensor, groups: Tensor, order: Tensor, threshold: float, extent: float, inclusive: bool
) -> Tensor:
    """Keep mask (K,) bool of boxes (K, 4), visited in the order given; O(K) memory, a pass per kept box.

    groups: (K,) int64. order: (K,) int64, a permutation in which every group's boxes come by falling score.
    A box is dropped when its IoU with a kept box of its group is above the threshold (or equal: inclusive).
    """
    sorted_boxes, group = boxes[order], groups[order]
    kept = torch.ones_like(group, dtype=torch.bool)
    # The comparison happens in the boxes' precision, as in the kernels.
    limit = torch.tensor(threshold, dtype=boxes.dtype, device=boxes.device)
    for i in range(len(kept)):
        if not kept[i]:
            continue
        rest = slice(i + 1, None)
        iou = _iou(sorted_boxes[i], sorted_boxes[rest], extent)
        too_close = iou >= limit if inclusive else iou > limit
        kept[rest] &= ~(too_close & (group[rest] == group[i]))
    keep = torch.empty_like(kept)
    keep[order] = kept
    return keep


def soft_nms_in_order_reference(
    boxes: Tensor,
    scores: Tensor,
    groups: Tensor,
    order: Tensor,
    method: int,
    sigma: float,
    overlap_threshold: float,
    score_threshold: float,
    extent: float,
) -> tuple[Tensor, Tensor]:
    """Scores (K,) and keep mask (K,) bool of soft-NMS; a pass per picked box.

    boxes: (K, 4), scores: (K,) of the same dtype, groups: (K,) int64. order: unused, as a pass looks at all.
    method: place in SOFT_METHODS. The best of all groups is picked first: groups do not change each other.
    """
    scores = scores.clone()
    keep = torch.ones_like(groups, dtype=torch.bool)
    overlap_limit = torch.tensor(overlap_threshold, dtype=boxes.dtype, device=boxes.device)
    score_limit = torch.tensor(score_threshold, dtype=boxes.dtype, device=boxes.device)
    picked = torch.zeros_like(keep)
    while True:
        live = keep & ~picked & ~scores.isnan()
        candidates = torch.where(live, scores, -torch.inf)
        pick = candidates.eq(candidates.amax()).nonzero()[0, 0] if len(scores) else None
        if pick is None or candidates[pick] == -torch.inf:
            break
        picked[pick] = True
        iou = _iou(boxes[pick], boxes, extent)
        meets = (iou > 0) & (groups == groups[pick]) & live & ~picked
        weight = _soft_weight(iou, method, sigma, overlap_limit)
        # A weight of 0 leaves nothing of an infinite score either.
        lowered = torch.where(weight > 0, weight * scores, torch.zeros_like(scores))
        scores = torch.where(meets, lowered, scores)
        keep &= ~(meets & (scores < score_limit))
    return scores, keep


def _soft_weight(iou: Tensor, method: int, sigma: float, overlap_limit: Tensor) -> Tensor:
    """What a score is multiplied by at an IoU above 0."""
    if SOFT_METHODS[method] == "gaussian":
        return torch.exp(-(iou * iou) / sigma)
    beyond = 1 - iou if SOFT_METHODS[method] == "linear" else torch.zeros_like(iou)
    return torch.where(iou > overlap_limit, beyond, torch.ones_like(iou))


def vote_boxes_in_groups_reference(
    top_boxes: Tensor,
    top_scores: Tensor,
    begin: Tensor,
    end: Tensor,
    boxes: Tensor,
    scores: Tensor,
    method: int,
    threshold: float,
    beta: float,
    extent: float,
) -> tuple[Tensor, Tensor]:
    """Boxes (K, 4) and scores (K,) after the votes of boxes (J, 4), scores (J,); sums in float64.

    begin, end: (K,) int64, the range of boxes that may vote for each top box. method: place in VOTE_METHODS.
    """
    limit = torch.tensor(threshold, dtype=boxes.dtype, device=boxes.device)
    place = torch.arange(len(boxes), device=boxes.device)
    parts = []
    for rows in torch.arange(len(top_boxes), device=boxes.device).split(max(1, _PAIRS // max(1, len(boxes)))):
        iou = _iou(top_boxes[rows, None], boxes, extent)
        votes = (iou >= limit) & (place >= begin[rows, None]) & (place < end[rows, None])
        parts.append(_count_votes(top_boxes[rows], top_scores[rows], votes, iou, boxes, scores, method, beta))
    if not parts:
        return top_boxes.clone(), top_scores.clone()
    return torch.cat([b for b, _ in parts]), torch.cat([s for _, s in parts])


def _count_votes(
    top_boxes: Tensor,
    top_scores: Tensor,
    votes: Tensor,
    iou: Tensor,
    boxes: Tensor,
    scores: Tensor,
    method: int,
    beta: float,
) -> tuple[Tensor, Tensor]:
    """What becomes of top boxes (k, 4) and scores (k,) under votes (k, J) bool with iou (k, J)."""
    s = scores.double()

    def total(value: Tensor) -> Tensor:
        return torch.where(votes, value, torch.zeros_like(value)).sum(1)

    weight, count = total(s.expand(votes.shape)), votes.double().sum(1)
    sums = torch.stack([total((s * corner).expand(votes.shape)) for corner in boxes.double().unbind(1)], 1)
    moved = torch.where((weight != 0)[:, None], sums / weight[:, None], top_boxes.double())
    if VOTE_METHODS[method] == "ID":
        return moved.to(top_boxes.dtype), top_scores.clone()
    if VOTE_METHODS[method] == "TEMP_AVG":
        yes, no = s ** (1 / beta), (1 - s) ** (1 / beta)
        voted = total((yes / (yes + no)).expand(votes.shape)) / count
    elif VOTE_METHODS[method] == "IOU_AVG":
        voted = total(s * iou.double()) / total(iou.double())
    elif VOTE_METHODS[method] == "GENERALIZED_AVG":
        voted = (total((s**beta).expand(votes.shape)) / count) ** (1 / beta)
    else:
        voted = weight / (count if VOTE_METHODS[method] == "AVG" else count**beta)
    voted = torch.where(count > 0, voted, top_scores.double())
    return moved.to(top_boxes.dtype), voted.to(top_scores.dtype)
