# SPDX-License-Identifier: Apache-2.0
"""Soft-NMS: an overlapping box loses score instead of its place."""

import torch
from torch import Tensor

from detectron_libra.ops.backend import is_built, use_compiled
from detectron_libra.ops.nms.checks import (
    by_group,
    check_boxes,
    check_choice,
    check_positive,
    in_working_dtype,
)
from detectron_libra.ops.nms.reference import SOFT_METHODS, soft_nms_in_order_reference

if is_built():
    _soft_nms_in_order = torch.ops.detectron_libra.soft_nms_in_order.default

    @torch.library.register_fake("detectron_libra::soft_nms_in_order")
    def _(boxes, scores, groups, order, method, sigma, overlap_threshold, score_threshold, extent):
        return boxes.new_empty(boxes.shape[:1]), boxes.new_empty(boxes.shape[:1], dtype=torch.bool)


def soft_nms(
    boxes: Tensor,
    scores: Tensor,
    groups: Tensor,
    *,
    method: str = "linear",
    sigma: float = 0.5,
    overlap_threshold: float = 0.3,
    score_threshold: float = 0.0001,
    extent: float,
) -> tuple[Tensor, Tensor]:
    """Scores after each box, best first, has lowered those of its group that it overlaps.

    The box with the highest score left is picked; every other one left whose IoU with it is above 0 has its
    score multiplied by a weight, and leaves if that puts it below score_threshold; and so on. A box that meets
    nobody stays, whatever its score.

    boxes: (K, 4) floating, x1 y1 x2 y2 in px. scores: (K,) floating; of equal scores the lower index is picked
    first; a NaN is never picked and never changes. groups: (K,) int64; boxes of different groups never meet.
    Half types are computed in float32.
    method: "linear", weight 1 - IoU above overlap_threshold and 1 up to it; "gaussian", exp(-IoU^2 / sigma) at
    every IoU; "hard", 0 above overlap_threshold: greedy suppression at a threshold that is exclusive.
    sigma: above 0, IoU squared. overlap_threshold: IoU. score_threshold: Detectron calls with 0.0001.
    extent: px added to x2 - x1 for a width (Geometry.extent).

    Returns: scores (K,) float32 (float64 for float64 input), for a box that left the one it left with; keep
    mask (K,) bool. Both of fixed size: nothing waits for the device.
    Raises: RuntimeError for shapes, dtypes or devices that do not match; ValueError for a method or a sigma
    there is not. Each names the argument.
    Source: Bodla et al., arXiv:1704.04503; Detectron's utils/cython_nms.pyx.
    """
    check_boxes(boxes, "boxes", scores=scores, groups=groups)
    number = check_choice("method", method, SOFT_METHODS)
    check_positive("sigma", sigma)
    boxes, scores = in_working_dtype(boxes, scores)
    run = _soft_nms_in_order if use_compiled(boxes) else soft_nms_in_order_reference
    order = by_group(groups)
    return run(boxes, scores, groups, order, number, sigma, overlap_threshold, score_threshold, extent)
