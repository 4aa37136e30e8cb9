# SPDX-License-Identifier: Apache-2.0
"""Balanced feature pyramid without its refinement: bring all levels to one, and give the result back to each.

Source: Pang et al., Libra R-CNN, arXiv:1904.02701, section 3.2.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from detectron_libra.ops.backend import is_built, use_compiled
from detectron_libra.ops.pyramid.reference import integrate_reference, strengthen_reference

if is_built():
    from detectron_libra.ops.pyramid import kernels

__all__ = ["balance", "integrate", "integrate_reference", "strengthen", "strengthen_reference"]


def integrate(levels: Sequence[Tensor], refine: int) -> Tensor:
    """Mean of all levels at the size of one: finer levels max-pooled, coarser ones resized by nearest.

    Args:
        levels: L tensors (N, C, H_l, W_l), finest first; float32, float64, float16 or bfloat16, contiguous or
            channels_last. At most 16 of them on CUDA.
        refine: index into ``levels`` of the level whose size the result has.

    Returns:
        (N, C, H_refine, W_refine), dtype and memory format of the levels. Summed in float32 from the first
        level to the last and divided by L. Gradients go to the first maximum of a pooling window in row-major
        order.

    Raises:
        RuntimeError: levels differ in N, C, dtype or device, or ``refine`` is no index.
    """
    levels = list(levels)
    if levels and use_compiled(levels[0]):
        return kernels.integrate(levels, refine, _learns(levels))[0]
    return integrate_reference(levels, refine)


def _learns(levels: list[Tensor]) -> bool:
    return torch.is_grad_enabled() and any(level.requires_grad for level in levels)


def strengthen(levels: Sequence[Tensor], refined: Tensor, refine: int) -> tuple[Tensor, ...]:
    """Every level plus the refined one at its size: nearest for finer levels, max-pooled for coarser ones.

    Args:
        levels: L tensors (N, C, H_l, W_l), as in `integrate`.
        refined: (N, C, H_refine, W_refine); converted to the levels' dtype where it differs (autocast).
        refine: index into ``levels`` of the level that ``refined`` came from.

    Returns:
        L tensors of the shapes, dtype and memory format of ``levels``.

    Raises:
        RuntimeError: as `integrate`, or ``refined`` has another shape than ``levels[refine]``.
    """
    levels = list(levels)
    refined = refined.to(levels[0].dtype) if levels else refined
    if levels and use_compiled(levels[0]):
        return tuple(kernels.strengthen(levels, refined, refine)[0])
    return strengthen_reference(levels, refined, refine)


def balance(
    levels: Sequence[Tensor], refine: int, refinement: Callable[[Tensor], Tensor] | None = None
) -> tuple[Tensor, ...]:
    """`integrate`, ``refinement``, `strengthen`: the whole balanced feature pyramid.

    The same numbers as the three calls, with one pass over the pyramid less in training: each level's two
    gradients, through the sum and through the mean, are added where the second is computed.

    Args:
        levels: L tensors (N, C, H_l, W_l), as in `integrate`.
        refine: index into ``levels`` of the level at whose size the mean is taken.
        refinement: from and to (N, C, H_refine, W_refine), differentiable; None: none.

    Returns:
        L tensors of the shapes, dtype and memory format of ``levels``.

    Raises:
        RuntimeError: as `integrate`, or ``refinement`` changes the shape.
    """
    levels = list(levels)
    if _learns(levels) and use_compiled(levels[0]):
        common, *levels = kernels.IntegrateKeeping.apply(refine, *levels)
    else:
        common = integrate(levels, refine)
    return strengthen(levels, common if refinement is None else refinement(common), refine)
