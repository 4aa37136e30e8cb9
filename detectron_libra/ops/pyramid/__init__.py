# SPDX-License-Identifier: Apache-2.0
"""Balanced feature pyramid without its refinement: bring all levels to one, and give the result back to each.

Source: Pang et al., Libra R-CNN, arXiv:1904.02701, section 3.2.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from detectron_libra.ops.backend import is_built, use_compiled
from detectron_libra.ops.pyramid.reference import check_levels, integrate_reference, strengthen_reference

__all__ = ["integrate", "integrate_reference", "strengthen", "strengthen_reference"]


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
        return torch.ops.detectron_libra.pyramid_integrate(levels, refine)[0]
    return integrate_reference(levels, refine)


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
        return tuple(torch.ops.detectron_libra.pyramid_strengthen(levels, refined, refine)[0])
    return strengthen_reference(levels, refined, refine)


def _memory_format(tensors: Sequence[Tensor]) -> torch.memory_format:
    for t in tensors:
        if t.is_contiguous(memory_format=torch.channels_last) and not t.is_contiguous():
            return torch.channels_last
    return torch.contiguous_format


def _positions(source: Tensor, target: Tensor, memory_format: torch.memory_format) -> Tensor:
    """Room for the positions of maxima, as the kernels allocate it."""
    cells = 1
    for n, m in zip(source.shape[2:], target.shape[2:], strict=True):
        cells *= n // m if n % m == 0 else n // m + 2
    dtype = torch.uint8 if cells <= 256 else torch.int32
    return torch.empty_like(target, dtype=dtype, memory_format=memory_format)


def _integrate_fake(levels, refine):
    check_levels(levels, refine)
    memory_format = _memory_format(levels)
    out = torch.empty_like(levels[refine], memory_format=memory_format)
    return out, [_positions(level, out, memory_format) for level in levels[:refine]]


def _integrate_backward_fake(grad, argmax, sizes, refine):
    memory_format = _memory_format([grad, *argmax])
    shapes = [(*grad.shape[:2], h, w) for h, w in zip(sizes[::2], sizes[1::2], strict=True)]
    return [torch.empty(s, dtype=grad.dtype, device=grad.device, memory_format=memory_format) for s in shapes]


def _integrate_setup(ctx, inputs, output):
    levels, ctx.refine = inputs
    ctx.sizes = [int(s) if isinstance(s, int) else s for level in levels for s in level.shape[2:]]
    ctx.save_for_backward(*output[1])


def _integrate_backward(ctx, grad, _):
    argmax = list(ctx.saved_tensors)
    op = torch.ops.detectron_libra.pyramid_integrate_backward
    return op(grad, argmax, ctx.sizes, ctx.refine), None


def _strengthen_fake(levels, refined, refine):
    check_levels([*levels, refined], refine)
    torch._check(
        refined.shape == levels[refine].shape, lambda: "refined must have the shape of levels[refine]"
    )
    memory_format = _memory_format([*levels, refined])
    out = [torch.empty_like(level, memory_format=memory_format) for level in levels]
    return out, [_positions(refined, level, memory_format) for level in out[refine + 1 :]]


def _strengthen_backward_fake(grads, argmax, refine):
    return torch.empty_like(grads[refine], memory_format=_memory_format([*grads, *argmax]))


def _strengthen_setup(ctx, inputs, output):
    ctx.refine = inputs[2]
    ctx.save_for_backward(*output[1])


def _strengthen_backward(ctx, grads, _):
    op = torch.ops.detectron_libra.pyramid_strengthen_backward
    refined = op(grads, list(ctx.saved_tensors), ctx.refine) if ctx.needs_input_grad[1] else None
    return list(grads), refined, None  # a level reaches its own output unchanged


def _refuse_second_derivative(ctx, *grads):
    raise NotImplementedError("the pyramid operators have no second derivative")


def _register() -> None:
    """Gives the compiled operators what C++ cannot on the stable ABI: shapes without data, and autograd."""
    for name, fake, fake_backward, setup, backward in (
        ("integrate", _integrate_fake, _integrate_backward_fake, _integrate_setup, _integrate_backward),
        ("strengthen", _strengthen_fake, _strengthen_backward_fake, _strengthen_setup, _strengthen_backward),
    ):
        op = f"detectron_libra::pyramid_{name}"
        torch.library.register_fake(op, fake)
        torch.library.register_fake(f"{op}_backward", fake_backward)
        torch.library.register_autograd(op, backward, setup_context=setup)
        torch.library.register_autograd(f"{op}_backward", _refuse_second_derivative)


if is_built():
    _register()
