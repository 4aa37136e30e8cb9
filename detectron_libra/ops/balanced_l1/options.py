# SPDX-License-Identifier: Apache-2.0
"""What the two public functions have in common: the range of the parameters, and the normaliser."""

import math

import torch
from torch import Tensor


def check_numbers(alpha: float, gamma: float, beta: float) -> None:
    """Raises ValueError for parameters out of range."""
    if not (alpha > 0 and gamma > 0 and beta >= 0):
        raise ValueError(
            f"alpha={alpha}, gamma={gamma}, beta={beta}: alpha and gamma must be > 0 and beta >= 0"
        )


def split_normalizer(normalizer: float | Tensor, like: Tensor) -> tuple[float, Tensor | None, Tensor | None]:
    """(factor, divisor, learner): how a kernel on ``like`` divides its sum by ``normalizer``.

    The kernel multiplies by the factor and divides by the divisor, a 0-d tensor of the sum's dtype; a
    normaliser that learns is left to the caller.
    """
    if not isinstance(normalizer, Tensor):
        return 1.0 / normalizer if normalizer else math.inf, None, None
    if normalizer.requires_grad:
        return 1.0, None, normalizer
    return 1.0, normalizer.to(torch.float64 if like.dtype == torch.float64 else torch.float32), None
