# SPDX-License-Identifier: Apache-2.0
"""Positive, negative or ignored: the general rule of IoU thresholds, for boxes of any kind."""

from dataclasses import dataclass

import torch
from torch import Tensor

from detectron_libra.ops.match_boxes import match_boxes, max_overlap_with
from detectron_libra.structures import Targets


@dataclass(frozen=True)
class Assignment:
    """Result of ``assign``.

    Attributes:
        state: (N, M) int64, 1 positive, 0 negative, -1 ignored.
        index: (N, M) int64, ground truth of a positive.
        iou: (N, M) float32, largest IoU with a ground truth.
    """

    state: Tensor
    index: Tensor
    iou: Tensor


def reaches(iou: Tensor, threshold: float) -> Tensor:
    """IoU at or above a threshold; 0 is no match, however low the threshold."""
    return (iou >= threshold) & (iou > 0)


def invert(mask: Tensor | None) -> Tensor | None:
    """``~mask``, or None without one."""
    return None if mask is None else ~mask


def inside_crowd(boxes: Tensor, targets: Targets, threshold: float | None, extent: float) -> Tensor | None:
    """(N, M) bool: more than ``threshold`` of a box (M or N x M, 4) lies in one crowd; None without one."""
    if threshold is None:
        return None
    return max_overlap_with(boxes, targets.boxes, targets.crowd, extent=extent) > threshold


@torch.no_grad()
def assign(
    boxes: Tensor,
    targets: Targets,
    *,
    positive: float,
    negative: float | tuple[float, float],
    min_positive: float = 0.0,
    low_quality: bool = True,
    crowd_threshold: float | None = None,
    crowd_first: bool = False,
    candidates: Tensor | None = None,
    extent: float,
) -> Assignment:
    """Positives, negatives and ignored boxes by IoU thresholds.

    A box is positive from IoU ``positive``, negative below ``negative`` (or within [low, high)), otherwise
    ignored. With ``low_quality`` the best boxes of each ground truth are positives of it from IoU
    ``min_positive``; the later ground truth wins.

    Args:
        boxes: (M, 4) or (N, M, 4) float32 pixels.
        crowd_threshold: share of a box inside a crowd above which it is no negative but ignored; None: crowds
            are background.
        crowd_first: such a box cannot be positive either, as if it did not exist.
        candidates: (N, M) bool, boxes that take part; the others are ignored.
        extent: pixels added to x2 - x1 to get a width.

    Source: mmdetection's MaxIoUAssigner (``crowd_first`` is its ignore_iof_thr); ground truth that no box
        overlaps gives no positives here.
    """
    crowded = inside_crowd(boxes, targets, crowd_threshold, extent)
    if crowd_first and crowded is not None:
        candidates = ~crowded if candidates is None else candidates & ~crowded
    found = match_boxes(
        boxes, targets.boxes, targets.valid, extent=extent, min_best_iou=min_positive, candidates=candidates
    )
    low, high = negative if isinstance(negative, tuple) else (0.0, negative)
    ignored = ~((found.iou >= low) & (found.iou < high))
    for unfit in (crowded, invert(candidates)):
        ignored = ignored if unfit is None else ignored | unfit
    state = torch.where(ignored, -1, 0)
    state = torch.where(reaches(found.iou, positive), 1, state)
    if not low_quality:
        return Assignment(state, found.index, found.iou)
    best = found.best_for >= 0
    return Assignment(torch.where(best, 1, state), torch.where(best, found.best_for, found.index), found.iou)
