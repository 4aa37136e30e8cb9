# SPDX-License-Identifier: Apache-2.0
"""Resizes of the balanced feature pyramid in plain PyTorch: the definition that the kernels must match."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def integrate_reference(levels: Sequence[Tensor], refine: int) -> Tensor:
    """See `detectron_libra.ops.pyramid.integrate`."""
    check_levels(levels, refine)
    target = levels[refine]
    size, exact = target.shape[-2:], _sum_dtype(target)
    total = torch.zeros((), dtype=exact, device=target.device)
    for i, level in enumerate(levels):
        total = total + _resize(level, size, pool=i < refine).to(exact)
    return (total / len(levels)).to(target.dtype)


def strengthen_reference(levels: Sequence[Tensor], refined: Tensor, refine: int) -> tuple[Tensor, ...]:
    """See `detectron_libra.ops.pyramid.strengthen`."""
    check_levels(levels, refine)
    torch._check(
        refined.shape == levels[refine].shape, lambda: "refined must have the shape of levels[refine]"
    )
    return tuple(x + _resize(refined, x.shape[-2:], pool=i > refine) for i, x in enumerate(levels))


def check_levels(levels: Sequence[Tensor], refine: int) -> None:
    """Refuses what is no pyramid: levels must be (N, C, H_l, W_l) of common N, C, dtype and device."""
    torch._check(0 <= refine < len(levels), lambda: f"refine must be an index into the levels, got {refine}")
    first = levels[0]
    for level in levels:
        torch._check(level.dim() == 4, lambda: "levels must be (N, C, H, W)")
        torch._check(level.shape[:2] == first.shape[:2], lambda: "levels must share N and C")
        torch._check(level.dtype == first.dtype, lambda: "levels must share one dtype")
        torch._check(level.device == first.device, lambda: "levels must be on one device")


def _resize(x: Tensor, size: Sequence[int], *, pool: bool) -> Tensor:
    if x.shape[-2:] == torch.Size(size):
        return x
    if pool:
        # float32 holds every bfloat16: the same maxima. torch 2.10 sends the gradient of bfloat16 to another place
        # than the first maximum.
        return F.adaptive_max_pool2d(x.to(_sum_dtype(x)), tuple(size)).to(x.dtype)
    return F.interpolate(x, size=tuple(size), mode="nearest")


def _sum_dtype(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32
