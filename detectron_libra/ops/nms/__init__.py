# SPDX-License-Identifier: Apache-2.0
"""Greedy non-maximum suppression of a whole batch in one call."""

import torch
from torch import Tensor

from detectron_libra.ops.backend import is_built, use_compiled
from detectron_libra.ops.nms.reference import nms_in_order_reference

__all__ = ["nms", "nms_in_order_reference"]

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
    neither drops another nor is dropped.
    Raises: RuntimeError for shapes, dtypes or devices that do not match, naming the argument.
    """
    _check(boxes, scores, groups)
    boxes = boxes.detach()
    if boxes.dtype != torch.float64:
        boxes = boxes.float()
    order = _visiting_order(scores.detach(), groups)
    run = _nms_in_order if use_compiled(boxes) else nms_in_order_reference
    return run(boxes, groups, order, threshold, extent, inclusive)


def _visiting_order(scores: Tensor, groups: Tensor) -> Tensor:
    """(K,) int64: groups one after the other, by falling score within each."""
    by_score = scores.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf).argsort(
        descending=True, stable=True
    )
    return by_score[groups[by_score].argsort(stable=True)]


def _check(boxes: Tensor, scores: Tensor, groups: Tensor) -> None:
    if boxes.dim() != 2 or boxes.shape[1] != 4:
        raise RuntimeError(f"boxes must be (K, 4), not {tuple(boxes.shape)}")
    if not boxes.is_floating_point():
        raise RuntimeError(f"boxes must be floating, not {boxes.dtype}")
    for name, tensor in (("scores", scores), ("groups", groups)):
        if tensor.shape != boxes.shape[:1]:
            raise RuntimeError(f"{name} must be ({boxes.shape[0]},) as boxes has, not {tuple(tensor.shape)}")
        if tensor.device != boxes.device:
            raise RuntimeError(f"{name} is on {tensor.device} and boxes on {boxes.device}")
    if groups.dtype != torch.int64:
        raise RuntimeError(f"groups must be int64, not {groups.dtype}")
