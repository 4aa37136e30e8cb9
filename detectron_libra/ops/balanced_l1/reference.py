# SPDX-License-Identifier: Apache-2.0
"""Balanced and smooth L1 in plain PyTorch: the definition that the kernels must match."""

import math

import torch
from torch import Tensor


def balanced_l1_reference(
    pred: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    form: str = "paper",
    alpha: float = 0.5,
    gamma: float = 1.5,
    beta: float = 1.0,
) -> Tensor:
    """Unreduced loss of pred against target.

    pred, target, weight: floating, any one shape. form: "paper", "released" or "smooth_l1".
    Returns: float64 for float64 input, otherwise float32, of the same shape. The gradient is finite for every
    residual that is not NaN, 0 at a residual of exactly 0, and NaN for NaN.
    Source: arXiv:1904.02701 eq. 8-9; "released" is the formula of the published code.
    """
    dtype = torch.float64 if pred.dtype == torch.float64 else torch.float32
    pred, target = pred.to(dtype), target.to(dtype)
    if weight is not None:
        # Weight 0 leaves an element out of value and gradient, infinite and NaN ones too.
        out = (weight == 0) & ~(pred - target).isfinite()
        pred, target = pred.masked_fill(out, 0), target.masked_fill(out, 0)
    x = pred - target
    sign = torch.where(x.isnan(), x, x.sign()).detach()
    distance = x * sign
    inside = distance < beta
    # The branch that is not taken must not see huge values: inf * 0 in its gradient would be NaN.
    near = torch.where(inside, distance, torch.zeros_like(distance))
    if form == "smooth_l1":
        loss = torch.where(inside, 0.5 * near * near / max(beta, 1e-300), distance - 0.5 * beta)
    else:
        b = math.expm1(gamma / alpha)
        offset = beta if form == "paper" else 1.0
        log = torch.log1p(b * near / max(beta, 1e-300))
        inner = alpha / b * (b * near + offset) * log - alpha * near
        outer = gamma * distance + (gamma * offset / b - alpha * beta)
        loss = torch.where(inside, inner, outer)
    if weight is None:
        return loss
    return weight.to(dtype) * loss.masked_fill((weight == 0) & ~loss.isfinite(), 0)
