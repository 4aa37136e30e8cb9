# SPDX-License-Identifier: Apache-2.0
"""Balanced L1 loss of Libra R-CNN and smooth L1, weighted and reduced in one kernel."""

import torch
from torch import Tensor

from detectron_libra.ops.backend import is_built, use_compiled
from detectron_libra.ops.balanced_l1.on_levels import balanced_l1_on_levels, balanced_l1_on_matches
from detectron_libra.ops.balanced_l1.options import check_numbers, split_normalizer
from detectron_libra.ops.balanced_l1.reference import balanced_l1_reference

if is_built():
    from detectron_libra.ops.balanced_l1 import kernels

__all__ = [
    "balanced_l1",
    "balanced_l1_on_levels",
    "balanced_l1_on_matches",
    "balanced_l1_reference",
    "smooth_l1",
]


def balanced_l1(
    pred: Tensor,
    target: Tensor,
    *,
    alpha: float = 0.5,
    gamma: float = 1.5,
    beta: float = 1.0,
    form: str = "paper",
    weight: Tensor | None = None,
    reduction: str = "none",
    normalizer: float | Tensor | None = None,
) -> Tensor:
    """Balanced L1: logarithmic slope up to a residual of beta, slope gamma beyond.

    pred, target: floating, any one shape, encoded boxes (no unit). weight: the same shape, multiplies each
    element. alpha > 0: share of the small residuals. gamma > 0: the largest slope. beta >= 0: residual where
    it is reached.
    form: "paper" integrates the paper's slope for any beta; "released" is the published code's formula, which
    agrees only at beta = 1. reduction: "none", "mean" or "sum". normalizer: number or 0-d tensor that "mean"
    divides the sum by instead of the number of elements; "none" ignores it.

    Returns: the loss, of pred's shape and dtype for "none"; otherwise 0-d, float64 for float64 input and
    float32 for any other. The sum is added in a fixed order: equal bits from run to run and for any number of
    threads. No elements give 0 for "sum" and for "mean". The gradient is gamma * sign for infinite residuals,
    0 at exactly 0, NaN for NaN. A weight of 0 leaves its element out, whatever it holds.
    Raises: ValueError for an unknown form or reduction, for a normalizer with "sum", and for parameters out
    of range; RuntimeError for shapes or devices that do not match.
    Source: arXiv:1904.02701 section 3.3.
    """
    if form not in ("paper", "released"):
        raise ValueError(f"form is {form!r}: paper or released")
    check_numbers(alpha, gamma, beta)
    return _loss(pred, target, weight, form, (alpha, gamma, beta), reduction, normalizer)


def smooth_l1(
    pred: Tensor,
    target: Tensor,
    *,
    beta: float,
    weight: Tensor | None = None,
    reduction: str = "none",
    normalizer: float | Tensor | None = None,
) -> Tensor:
    """Smooth L1: x^2 / (2 beta) up to a residual of beta >= 0, |x| - beta / 2 beyond; beta = 0 is L1.

    Arguments, Returns and Raises as for `balanced_l1`. Source: arXiv:1504.08083 eq. 3, beta as in Detectron.
    """
    if not beta >= 0:
        raise ValueError(f"beta={beta}: must be >= 0")
    return _loss(pred, target, weight, "smooth_l1", (1.0, 1.0, beta), reduction, normalizer)


def _loss(pred, target, weight, form, numbers, reduction, normalizer):
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"reduction is {reduction!r}: none, mean or sum")
    if reduction == "sum" and normalizer is not None:
        raise ValueError("normalizer with reduction 'sum': use 'mean', which divides the sum by it")
    pred, target, weight = _fitting(pred, target, weight)
    if reduction == "none":
        return _values(pred, target, weight, form, numbers)
    if reduction == "sum":
        normalizer = 1.0
    elif normalizer is None:
        normalizer = max(pred.numel(), 1)
    return _sum(pred, target, weight, normalizer, form, numbers)


def _fitting(pred, target, weight):
    """The three in the widest of their dtypes: a half-precision head meets float32 targets."""
    dtype = pred.dtype
    for name, other in (("target", target), ("weight", weight)):
        if other is None:
            continue
        if other.shape != pred.shape:
            raise RuntimeError(
                f"pred and {name} must have the same shape, not {tuple(pred.shape)} and {tuple(other.shape)}"
            )
        if other.device != pred.device:
            raise RuntimeError(
                f"pred and {name} must be on the same device, not {pred.device} and {other.device}"
            )
        if other.dtype != dtype:
            dtype = torch.promote_types(dtype, other.dtype)
    if not dtype.is_floating_point:
        raise RuntimeError(f"pred must be floating, not {dtype}")
    pred = pred if pred.dtype == dtype else pred.to(dtype)
    target = target if target.dtype == dtype else target.to(dtype)
    return pred, target, weight if weight is None or weight.dtype == dtype else weight.to(dtype)


def _values(pred, target, weight, form, numbers):
    if use_compiled(pred):
        return kernels.values(pred, target, weight, kernels.FORMS[form], *numbers)
    return _reference(pred, target, weight, form, numbers).to(pred.dtype)


def _sum(pred, target, weight, normalizer, form, numbers):
    if use_compiled(pred):
        scale, divisor, learner = split_normalizer(normalizer, pred)
        total = kernels.total(pred, target, weight, divisor, scale, kernels.FORMS[form], *numbers)
        return total if learner is None else total / learner
    return _reference(pred, target, weight, form, numbers).sum() / normalizer


def _reference(pred, target, weight, form, numbers):
    alpha, gamma, beta = numbers
    with torch.autocast(pred.device.type, enabled=False):
        return balanced_l1_reference(pred, target, weight, form=form, alpha=alpha, gamma=gamma, beta=beta)
