# SPDX-License-Identifier: Apache-2.0
"""Balanced L1 on a dense head's raw box outputs: the target boxes are encoded where they are compared."""

from collections.abc import Sequence

import torch
from torch import Tensor

from detectron_libra.ops.backend import is_built, use_compiled
from detectron_libra.ops.balanced_l1.levels_reference import on_levels_reference
from detectron_libra.ops.balanced_l1.options import check_numbers, split_normalizer

if is_built():
    from detectron_libra.ops.balanced_l1 import kernels

FORMS = ("paper", "released", "smooth_l1")


def balanced_l1_on_levels(
    deltas: Sequence[Tensor],
    anchors: Tensor,
    boxes: Tensor,
    *,
    locations: Tensor,
    extent: float,
    form: str = "paper",
    alpha: float = 0.5,
    gamma: float = 1.5,
    beta: float = 1.0,
    normalizer: float | Tensor = 1.0,
) -> Tensor:
    """Sum over a list of positive anchors of the loss of their four deltas, divided by ``normalizer``.

    What Detectron's SelectSmoothL1Loss computes, for all levels at once and with the choice of the loss.

    Args:
        deltas: per level (N, 4A, H_l, W_l) floating, contiguous or channels_last, channels ordered anchor by
            anchor; at most 16 levels.
        anchors: (M, 4) float32 pixels, M = sum of H_l * W_l * A: levels one after another, in each rows,
            columns, anchors of the cell.
        boxes: (K, 4) float32 pixels, what the anchor of each location should become.
        locations: (K,) int64, image * M + anchor. A number outside 0..N*M-1, such as -1, leaves its row
            unused. No location may occur twice: its gradient would be one of the two.
        extent: pixels added to x2 - x1 to get a width.
        form: "paper", "released" or "smooth_l1", the last of which reads beta alone.
        alpha, gamma, beta: as for `balanced_l1`.
        normalizer: number, or 0-d tensor on the device of the deltas.

    Returns:
        0-d float64 for float64 deltas, float32 for any other. Differentiable once, with respect to the
        deltas; the gradient has each level's dtype and memory format. Equal bits from run to run and for any
        number of threads. The host does not wait for the device.

    Raises:
        ValueError: parameters out of range, an unknown form.
        RuntimeError: shapes, dtypes or devices that do not match, naming the argument.

    Source: Detectron's select_smooth_l1_loss_op.cu and roi_data/retinanet.py; arXiv:1904.02701 section 3.3.
    """
    return _loss(
        deltas, anchors, boxes, (locations, None, None), extent, form, (alpha, gamma, beta), normalizer
    )


def balanced_l1_on_matches(
    deltas: Sequence[Tensor],
    anchors: Tensor,
    boxes: Tensor,
    *,
    positive: Tensor,
    index: Tensor,
    extent: float,
    form: str = "paper",
    alpha: float = 0.5,
    gamma: float = 1.5,
    beta: float = 1.0,
    normalizer: float | Tensor = 1.0,
) -> Tensor:
    """`balanced_l1_on_levels` for what a matcher says of every anchor instead of a list.

    Args:
        boxes: (N, G, 4) float32 pixels, the padded ground truth of each image.
        positive: (N, M) bool, the anchors that learn.
        index: (N, M) int64, row of ``boxes`` that a positive learns; one outside 0..G-1 learns nothing.

    The other arguments, Returns, Raises and Source are those of `balanced_l1_on_levels`.
    """
    return _loss(
        deltas, anchors, boxes, (None, positive, index), extent, form, (alpha, gamma, beta), normalizer
    )


def _loss(deltas, anchors, boxes, chosen, extent, form, numbers, normalizer):
    if form not in FORMS:
        raise ValueError(f"form is {form!r}: use one of {', '.join(FORMS)}")
    check_numbers(*numbers)
    deltas = list(deltas)
    _check(deltas, anchors, boxes, *chosen)
    if not use_compiled(deltas[0]):
        with torch.autocast(deltas[0].device.type, enabled=False):
            total = on_levels_reference(deltas, anchors, boxes, chosen, extent, form, numbers)
        return total / normalizer
    scale, divisor, learner = split_normalizer(normalizer, deltas[0])
    total = kernels.total_on_levels(
        deltas, anchors, boxes, *chosen, divisor, scale, float(extent), kernels.FORMS[form], *numbers
    )
    return total if learner is None else total / learner


def _check(deltas, anchors, boxes, locations, positive, index):
    if not deltas:
        raise RuntimeError("deltas must hold at least one tensor")
    first = deltas[0]
    for t in deltas:
        if t.dim() != 4 or t.shape[1] % 4 or t.shape[:2] != first.shape[:2] or 0 in t.shape[1:]:
            raise RuntimeError(
                f"deltas must be (N, 4A, H, W) with common N and A and at least one cell, not {tuple(t.shape)}"
            )
        if t.dtype != first.dtype or t.device != first.device:
            raise RuntimeError("deltas must share one dtype and one device")
    if not first.is_floating_point():
        raise RuntimeError(f"deltas must be floating, not {first.dtype}")
    images, count = first.shape[0], sum(t.shape[1] // 4 * t.shape[2] * t.shape[3] for t in deltas)
    one = (images, count)
    expected: list[tuple] = [("anchors", anchors, (count, 4), torch.float32)]
    if locations is not None:
        expected += [("locations", locations, (locations.numel(),), torch.int64)]
        expected += [("boxes", boxes, (locations.numel(), 4), torch.float32)]
    else:
        expected += [("positive", positive, one, torch.bool), ("index", index, one, torch.int64)]
        expected += [
            ("boxes", boxes, (images, boxes.shape[1] if boxes.dim() == 3 else "G", 4), torch.float32)
        ]
    for name, t, shape, dtype in expected:
        if tuple(t.shape) != shape or t.dtype != dtype or t.device != first.device:
            raise RuntimeError(
                f"{name} must be {shape} {dtype} on {first.device} to go with the deltas, not "
                f"{tuple(t.shape)} {t.dtype} on {t.device}"
            )
