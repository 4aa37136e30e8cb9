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


def _sizes(levels: Sequence[Tensor]) -> list[int]:
    """N, H and W of each level in turn."""
    return [n for level in levels for n in (level.shape[0], level.shape[2], level.shape[3])]
