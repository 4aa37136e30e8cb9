# SPDX-License-Identifier: Apache-2.0
"""Proposals followed by the ground truth itself, matched without comparing every ground truth with every other."""

import torch
from torch import Tensor

from detectron_libra.modeling.layout import gather_rows
from detectron_libra.ops.match_boxes import match_boxes

#: Ground truths per image up to which all pairs are compared: that takes less time than a sort of so few.
FEW = 256
#: Added below the quotient of areas by match_boxes, in square pixels; a smaller box overlaps itself by less than 1.
SMALLEST_AREA = 1e-6


def best_overlap(
    boxes: Tensor, truth: Tensor, mask: Tensor, *, own: int, extent: float
) -> tuple[Tensor, Tensor]:
    """What ``match_boxes`` says of proposals, in a number of comparisons that grows with the ground truth, not with its
    square.

    Args:
        boxes: (N, P, 4) float32 pixels; the last ``own`` of each image are its ground truth, row by row.
        truth: (N, G, 4) float32; mask: (N, G) bool, rows that can be matched.
        own: G, or 0 where there is no ground truth among the boxes.
        extent: pixels added to x2 - x1 to get a width.

    Returns:
        (N, P) float32 largest IoU, and (N, P) int64 that ground truth, the first of equal ones.
    """
    if own <= FEW:
        found = match_boxes(boxes, truth, mask, extent=extent)
        return found.iou, found.index
    found = match_boxes(boxes[:, :-own], truth, mask, extent=extent)
    size = (truth[..., 2:] - truth[..., :2] + extent).clamp(min=0)
    area = size.prod(-1)
    iou = torch.where(mask & (area > 0), area / area.clamp(min=SMALLEST_AREA), 0.0)
    index = torch.where(iou > 0, first_equal(truth, mask), 0)
    return torch.cat([found.iou, iou], 1), torch.cat([found.index, index], 1)


def first_equal(boxes: Tensor, mask: Tensor) -> Tensor:
    """(N, G) int64: the first row of ``mask`` (N, G) with the same box (N, G, 4); the host reads nothing."""
    columns = torch.cat([boxes, (~mask)[..., None].to(boxes.dtype)], -1)
    images, count, width = columns.shape
    order = torch.arange(count, device=boxes.device).expand(images, -1)
    for k in range(width):  # a stable sort by one column after the other, the last one weighing most
        order = order.gather(1, columns[..., k].gather(1, order).argsort(dim=1, stable=True))
    ranked = gather_rows(columns, order)
    differs = (ranked[:, 1:] != ranked[:, :-1]).any(-1)
    begins = torch.cat([torch.ones_like(mask[:, :1]), differs], 1)
    place = torch.arange(count, device=boxes.device).expand(images, -1)
    start = torch.where(begins, place, 0).cummax(1).values
    return torch.zeros_like(order).scatter(1, order, order.gather(1, start))
