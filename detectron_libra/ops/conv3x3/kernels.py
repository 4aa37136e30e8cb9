# SPDX-License-Identifier: Apache-2.0
"""The Winograd convolution put together, with its gradient. Imported only where the kernels are built."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

_ops = torch.ops.detectron_libra


class Conv3x3(torch.autograd.Function):
    """(weight, bias, relu, tile, *levels) to the outputs of the levels.

    The products of all levels are one batch of matrix products, so that small levels cost what large ones do.
    What the backward pass transforms anew it need not keep: of the inputs nothing but the inputs is saved.
    """

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, bias: Tensor | None, relu: bool, tile: int, *levels: Tensor
    ) -> tuple[Tensor, ...]:
        planes = _ops.winograd_input(levels, tile)
        kernel = _ops.winograd_weight(weight, tile, planes.dtype)
        sizes = _sizes(levels)
        products = torch.bmm(planes, kernel.transpose(1, 2))
        outputs = _ops.winograd_output(products, bias, relu, sizes, tile)
        ctx.tile, ctx.sizes, ctx.count, ctx.relu = tile, sizes, len(levels), relu
        ctx.save_for_backward(kernel, *levels, *(outputs if relu else ()))
        return tuple(outputs)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        kernel, *rest = ctx.saved_tensors
        levels, outputs = rest[: ctx.count], rest[ctx.count :]
        needs_weight, needs_bias, _, _, *needs_levels = ctx.needs_input_grad
        planes = _ops.winograd_output_backward(grads, outputs, ctx.tile)
        grad_weight = grad_bias = None
        grad_levels: Sequence[Tensor | None] = [None] * ctx.count
        if needs_weight:
            inputs = _ops.winograd_input(levels, ctx.tile)
            products = torch.bmm(planes.transpose(1, 2), inputs)
            grad_weight = _ops.winograd_weight_backward(products, ctx.tile)
            del inputs, products
        if needs_bias:
            # The point 1 of the interpolation: this plane holds the sum of each tile.
            grad_bias = planes[ctx.tile + 3].sum(0, dtype=torch.float32)
        if any(needs_levels):
            grad_levels = _ops.winograd_input_backward(torch.bmm(planes, kernel), ctx.sizes, ctx.tile)
        return grad_weight, grad_bias, None, None, *grad_levels


def planes_like(tensor: Tensor, tile: int, rows: int, channels: int, dtype: torch.dtype) -> Tensor:
    """Planes of so many rows, as the kernels allocate them."""
    return tensor.new_empty((tile + 2) ** 2, rows, channels, dtype=dtype)


def _tiles(sizes: Sequence[int], tile: int) -> int:
    levels = zip(sizes[::3], sizes[1::3], sizes[2::3], strict=True)
    return sum(n * -(-h // tile) * -(-w // tile) for n, h, w in levels)


def _images(planes: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    shapes = zip(sizes[::3], sizes[1::3], sizes[2::3], strict=True)
    empty = [planes.new_empty(n, planes.shape[2], h, w) for n, h, w in shapes]
    return [t.contiguous(memory_format=torch.channels_last) for t in empty]


def _sizes(levels: Sequence[Tensor]) -> list[int]:
    """N, H and W of each level in turn."""
    return [n for level in levels for n in (level.shape[0], level.shape[2], level.shape[3])]


def _input_fake(levels, tile):
    first = levels[0]
    return planes_like(first, tile, _tiles(_sizes(levels), tile), first.shape[1], first.dtype)


def _weight_fake(weight, tile, dtype):
    return planes_like(weight, tile, weight.shape[0], weight.shape[1], dtype)


def _weight_backward_fake(planes, tile):
    grad = planes.new_empty(planes.shape[1], planes.shape[2], 3, 3, dtype=torch.float32)
    return grad.contiguous(memory_format=torch.channels_last)


def _images_fake(planes, sizes, tile):
    return _images(planes, sizes)


def _output_fake(planes, bias, relu, sizes, tile):
    return _images(planes, sizes)


def _output_backward_fake(grads, outputs, tile):
    return _input_fake(grads, tile)


def _refuse(ctx, *grads):
    raise NotImplementedError(
        "the parts of a Winograd convolution have no gradient of their own; call conv3x3"
    )


for _name, _fake in (
    ("input", _input_fake),
    ("input_backward", _images_fake),
    ("weight", _weight_fake),
    ("weight_backward", _weight_backward_fake),
    ("output", _output_fake),
    ("output_backward", _output_backward_fake),
):
    torch.library.register_fake(f"detectron_libra::winograd_{_name}", _fake)
    # An operator without a rule would let a derivative through as if it were zero.
    torch.library.register_autograd(f"detectron_libra::winograd_{_name}", _refuse)
