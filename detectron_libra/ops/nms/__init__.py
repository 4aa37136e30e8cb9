# SPDX-License-Identifier: Apache-2.0
"""Suppression of a whole batch in one call: greedy, or by lowering scores; and votes for the boxes kept."""

import torch
from torch import Tensor

from detectron_libra.ops.backend import is_built, use_compiled
from detectron_libra.ops.nms.checks import by_group, check_boxes, in_working_dtype
from detectron_libra.ops.nms.reference import (
    nms_in_order_reference,
    soft_nms_in_order_reference,
    vote_boxes_in_groups_reference,
)
from detectron_libra.ops.nms.soft import soft_nms
from detectron_libra.ops.nms.vote import vote_boxes

__all__ = [
    "nms",
    "nms_in_order_reference",
    "soft_nms",
    "soft_nms_in_order_reference",
    "vote_boxes",
    "vote_boxes_in_groups_reference",
]

if is_built():
    _nms_in_order = torch.ops.detectron_libra.nms_in_order.default

    @torch.library.register_fake("detectron_libra::nms_in_order")
    def _(boxes, groups, order, threshold, extent, inclusive):
        return boxes.new_empty(boxes.shape[:1], dtype=torch.bool)


def nms(
    boxes: Tensor, scores: Tensor, groups: Tensor, *, threshold: float, extent: float, inclusive: bool
) -> Tensor:
    """Which boxes stay when each drops the lower-scored ones of its group that overlap it too much.

    boxes: (K, 4) floating, x1 y1 x2 y2 in px; half types are read as float32. scores: (K,) floating; of equal
    scores the lower index goes first; a NaN goes last. groups: (K,) int64; boxes of different groups never
    meet: the class, or image * C + class for a batch. threshold: IoU. extent: px added to x2 - x1 for a width
    (Geometry.extent).
    inclusive: an IoU equal to the threshold drops too (Geometry.nms_inclusive).

    Returns: keep mask (K,) bool, of fixed size: nothing waits for the device. A box with a NaN coordinate
    neither drops another nor is dropped. Memory grows with K, not with pairs of boxes.
    Raises: RuntimeError for shapes, dtypes or devices that do not match, naming the argument.
    """
    check_boxes(boxes, "boxes", scores=scores, groups=groups)
    (boxes,) = in_working_dtype(boxes)
    order = _visiting_order(scores.detach(), groups)
    run = _nms_in_order if use_compiled(boxes) else nms_in_order_reference
    return run(boxes, groups, order, threshold, extent, inclusive)


def _visiting_order(scores: Tensor, groups: Tensor) -> Tensor:
    """(K,) int64: groups one after the other, by falling score within each."""
    by_score = scores.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf).argsort(
        descending=True, stable=True
    )
    return by_score[by_group(groups[by_score])]
