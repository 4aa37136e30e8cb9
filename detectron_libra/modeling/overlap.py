# SPDX-License-Identifier: Apache-2.0
"""Overlap of pairs of boxes, in the dtype that they have, with gradients."""

import torch
from torch import Tensor

#: Areas below this many square pixels count as this large: boxes without area overlap nothing, and by no NaN.
SMALLEST_AREA = 1e-7


def areas(boxes: Tensor, extent: float) -> Tensor:
    """(...) square pixels of boxes (..., 4); 0 where a side is negative."""
    return (boxes[..., 2:] - boxes[..., :2] + extent).clamp(min=0).prod(-1)


def overlap_and_union(boxes: Tensor, others: Tensor, extent: float) -> tuple[Tensor, Tensor]:
    """IoU (...) of pairs of boxes (..., 4), and the area (...) of their union in square pixels."""
    shared = torch.cat(
        (torch.maximum(boxes[..., :2], others[..., :2]), torch.minimum(boxes[..., 2:], others[..., 2:])), -1
    )
    shared = areas(shared, extent)
    union = (areas(boxes, extent) + areas(others, extent) - shared).clamp(min=SMALLEST_AREA)
    return shared / union, union


def paired_iou(boxes: Tensor, others: Tensor, *, extent: float) -> Tensor:
    """IoU (...) of pairs of boxes.

    Args:
        boxes, others: (..., 4) x1 y1 x2 y2 in pixels, broadcast against each other.
        extent: pixels added to x2 - x1 to get a width.
    """
    return overlap_and_union(boxes, others, extent)[0]


def generalised_iou(boxes: Tensor, others: Tensor, *, extent: float) -> Tensor:
    """IoU less the share of the smallest enclosing box that neither covers: a measure of boxes that are apart, too.

    Args:
        boxes, others: (..., 4) x1 y1 x2 y2 in pixels, broadcast against each other.
        extent: pixels added to x2 - x1 to get a width.

    Returns:
        (...) in -1..1, 1 for equal boxes.

    Source: Rezatofighi et al., Generalized Intersection over Union, CVPR 2019, arXiv:1902.09630, algorithm 1.
    """
    iou, union = overlap_and_union(boxes, others, extent)
    around = torch.cat(
        (torch.minimum(boxes[..., :2], others[..., :2]), torch.maximum(boxes[..., 2:], others[..., 2:])), -1
    )
    enclosing = areas(around, extent).clamp(min=SMALLEST_AREA)
    return iou - (enclosing - union) / enclosing
