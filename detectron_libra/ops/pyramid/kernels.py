# SPDX-License-Identifier: Apache-2.0
"""The kernels of the pyramid operators as torch sees them: shapes and gradients. Imported only where built."""

from collections.abc import Sequence

import torch
from torch import Tensor

from detectron_libra.ops.pyramid.reference import check_levels

integrate = torch.ops.detectron_libra.pyramid_integrate.default
strengthen = torch.ops.detectron_libra.pyramid_strengthen.default
_integrate_gradients = torch.ops.detectron_libra.pyramid_integrate_backward.default
_strengthen_gradient = torch.ops.detectron_libra.pyramid_strengthen_backward.default


class IntegrateKeeping(torch.autograd.Function):
    """Maps (refine, *levels) to (mean, *levels). Who goes on with the levels that come back sends their other
    gradient this way, and it is added inside the kernel."""

    @staticmethod
    def forward(ctx, refine, *levels):
        common, argmax = integrate(list(levels), refine, True)
        ctx.set_materialize_grads(False)
        ctx.refine = refine
        ctx.sizes = [n for level in levels for n in level.shape[2:]]
        ctx.save_for_backward(*argmax)
        return common, *(level.view_as(level) for level in levels)

    @staticmethod
    def backward(ctx, grad, *passed):
        if grad is None:
            return None, *passed
        argmax = list(ctx.saved_tensors)
        return None, *_integrate_gradients(grad, list(passed), argmax, ctx.sizes, ctx.refine)


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


def _integrate_fake(levels, refine, positions):
    check_levels(levels, refine)
    memory_format = _memory_format(levels)
    out = torch.empty_like(levels[refine], memory_format=memory_format)
    return out, [_positions(level, out, memory_format) for level in levels[: refine if positions else 0]]


def _integrate_backward_fake(grad, passed, argmax, sizes, refine):
    memory_format = _memory_format([grad, *argmax])
    shapes = [(*grad.shape[:2], h, w) for h, w in zip(sizes[::2], sizes[1::2], strict=True)]
    return [torch.empty(s, dtype=grad.dtype, device=grad.device, memory_format=memory_format) for s in shapes]


def _integrate_setup(ctx, inputs, output):
    levels, ctx.refine, positions = inputs
    ctx.has_gradient = positions or ctx.refine == 0
    ctx.sizes = [n for level in levels for n in level.shape[2:]]
    ctx.save_for_backward(*output[1])


def _integrate_backward(ctx, grad, _):
    if not ctx.has_gradient:
        raise RuntimeError("pyramid_integrate was called without positions, which its gradient needs")
    return _integrate_gradients(grad, [], list(ctx.saved_tensors), ctx.sizes, ctx.refine), None, None


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
    refined = None
    if ctx.needs_input_grad[1]:
        refined = _strengthen_gradient(grads, list(ctx.saved_tensors), ctx.refine)
    return list(grads), refined, None  # a level reaches its own output unchanged


def _refuse_second_derivative(ctx, *grads):
    raise NotImplementedError("the pyramid operators have no second derivative")


for _name, _fake, _fake_backward, _setup, _backward in (
    ("integrate", _integrate_fake, _integrate_backward_fake, _integrate_setup, _integrate_backward),
    ("strengthen", _strengthen_fake, _strengthen_backward_fake, _strengthen_setup, _strengthen_backward),
):
    _op = f"detectron_libra::pyramid_{_name}"
    torch.library.register_fake(_op, _fake)
    torch.library.register_fake(f"{_op}_backward", _fake_backward)
    torch.library.register_autograd(_op, _backward, setup_context=_setup)
    # An operator without a rule would let a second derivative through as if it were zero.
    torch.library.register_autograd(f"{_op}_backward", _refuse_second_derivative)
