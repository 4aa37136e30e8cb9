# SPDX-License-Identifier: Apache-2.0
"""Best ground truth per box, and the boxes that are some ground truth's best, in plain PyTorch."""

from dataclasses import dataclass

import torch
from torch import Tensor

#: Added below a quotient of areas, in square pixels: two boxes without area have an overlap of 0.
SMALLEST_AREA = 1e-6


@dataclass(frozen=True)
class Matches:
    """Result of ``match_boxes``.

    Attributes:
        iou: (N, M) float32, largest IoU with a ground truth; 0 where there is none.
        index: (N, M) int64, that ground truth, the first of equals; 0 where there is none.
        best_for: (N, M) int64, the last ground truth that has no better box than this one; -1 for none.
    """

    iou: Tensor
    index: Tensor
    best_for: Tensor


def area(boxes: Tensor, extent: float) -> Tensor:
    """Areas of boxes (..., 4), in square pixels; 0 where a side is negative."""
    side = (boxes[..., 2:] - boxes[..., :2] + extent).clamp(min=0)
    return side[..., 0] * side[..., 1]


def intersection(boxes: Tensor, others: Tensor, extent: float) -> Tensor:
    """Shared area of every one of boxes (M, 4) with every one of others (G, 4): (G, M), M innermost."""
    # Coordinates apart and in-place steps: this is where matching spends its time on a CPU.
    x1, y1, x2, y2 = boxes.t().contiguous()
    ox1, oy1, ox2, oy2 = others[:, None].unbind(2)
    width = torch.minimum(x2, ox2).sub_(torch.maximum(x1, ox1)).add_(extent).clamp_(min=0)
    height = torch.minimum(y2, oy2).sub_(torch.maximum(y1, oy1)).add_(extent).clamp_(min=0)
    return width.mul_(height)


@torch.no_grad()
def pairwise_iou(boxes: Tensor, others: Tensor, *, extent: float) -> Tensor:
    """Intersection over union of every pair.

    Args:
        boxes: (M, 4) float32 x1 y1 x2 y2 in pixels.
        others: (G, 4) float32.
        extent: pixels added to x2 - x1 to get a width.

    Returns:
        (G, M) float32 in 0..1; 0 for boxes without area.
    """
    shared = intersection(boxes, others, extent)
    union = (area(boxes, extent) + area(others, extent)[:, None]).sub_(shared)
    return shared.div_(union.clamp_(min=SMALLEST_AREA))


def match_one_image(
    boxes: Tensor, gt: Tensor, valid: Tensor, candidates: Tensor | None, extent: float, min_best_iou: float
) -> tuple[Tensor, Tensor, Tensor]:
    """``match_boxes`` for boxes (M, 4), gt (G, 4), valid (G,) and candidates (M,); G > 0."""
    taking_part = valid[:, None] if candidates is None else valid[:, None] & candidates
    iou = pairwise_iou(boxes, gt, extent=extent)
    iou = torch.where(taking_part & (iou > 0), iou, 0)  # a NaN coordinate overlaps nothing
    best, index = iou.max(0)
    gt_best = iou.amax(1, keepdim=True)
    tied = (iou == gt_best) & (gt_best > 0) & (gt_best >= min_best_iou)
    rows = torch.arange(len(gt), device=gt.device)[:, None]
    return best, index, torch.where(tied, rows, -1).amax(0)


@torch.no_grad()
def match_boxes_reference(
    boxes: Tensor,
    gt: Tensor,
    valid: Tensor,
    *,
    extent: float,
    min_best_iou: float = 0.0,
    candidates: Tensor | None = None,
) -> Matches:
    """See `detectron_libra.ops.match_boxes.match_boxes`. One image at a time: G x M numbers, not N times as many."""
    images, num_gt = gt.shape[:2]
    count = boxes.shape[-2]
    if num_gt == 0 or images == 0 or count == 0:
        index = gt.new_zeros((images, count), dtype=torch.int64)
        return Matches(gt.new_zeros((images, count)), index, index - 1)
    boxes = boxes.expand(images, count, 4)
    rows = [
        match_one_image(
            boxes[n], gt[n], valid[n], None if candidates is None else candidates[n], extent, min_best_iou
        )
        for n in range(images)
    ]
    return Matches(*(torch.stack(column) for column in zip(*rows, strict=True)))


@torch.no_grad()
def max_overlap_with_reference(boxes: Tensor, regions: Tensor, mask: Tensor, *, extent: float) -> Tensor:
    """See `detectron_libra.ops.match_boxes.max_overlap_with`."""
    images, num_regions = regions.shape[:2]
    count = boxes.shape[-2]
    if num_regions == 0 or images == 0 or count == 0:
        return regions.new_zeros((images, count))
    boxes = boxes.expand(images, count, 4)
    shared = []
    for n in range(images):
        inside = intersection(boxes[n], regions[n], extent)
        shared.append(torch.where(mask[n][:, None] & (inside > 0), inside, 0).amax(0))
    share = torch.stack(shared) / area(boxes, extent).clamp(min=SMALLEST_AREA)
    return torch.where(share > 0, share, 0)  # a NaN coordinate overlaps nothing
