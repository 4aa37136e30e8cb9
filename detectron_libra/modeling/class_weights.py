# SPDX-License-Identifier: Apache-2.0
"""Factors of classes from the number of boxes that each has."""

import torch
from torch import Tensor

KINDS = {
    "inverse": lambda count, beta: 1 / count,
    "square_root": lambda count, beta: count.rsqrt(),
    "effective_number": lambda count, beta: (
        (1 - beta) / -torch.expm1(count * torch.tensor(beta, dtype=torch.float64).log())
    ),
}


def class_weights(counts: Tensor, kind: str, *, beta: float = 0.999) -> Tensor:
    """Weights that are larger the fewer boxes a class has, with mean 1.

    Args:
        counts: (K,) int64, boxes of each class, without background.
        kind: "inverse" 1 / n; "square_root" 1 / sqrt(n); "effective_number" (1 - beta) / (1 - beta^n).
        beta: of the last one, in 0..1; 0 gives equal weights, towards 1 it becomes 1 / n.

    Returns:
        (K,) float32. A class without boxes weighs 1, and the mean is that of the others.

    Raises:
        ValueError: another kind.

    Source: Cui et al., Class-Balanced Loss, CVPR 2019, arXiv:1901.05555 (the sum of all is K there, too).
    """
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}; use one of {', '.join(KINDS)}")
    present = counts > 0
    weight = KINDS[kind](counts.clamp(min=1).double(), beta) * present
    weight = weight * present.sum().clamp(min=1) / weight.sum().clamp(min=torch.finfo(torch.float64).tiny)
    return torch.where(present, weight, 1.0).float()
