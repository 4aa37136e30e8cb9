# SPDX-License-Identifier: Apache-2.0
"""Convolutions of the detectors: nn.Conv2d's, computed the fastest way that is known for their shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from detectron_libra.ops.conv3x3 import conv3x3

#: Images from which PyTorch gives a 1x1 convolution on one thread to oneDNN; below, to a path of its own.
FEW_IMAGES = 16


class Conv2d(nn.Conv2d):
    """As nn.Conv2d, with a ReLU behind it if asked for, and of several levels at once.

    A 3x3 convolution with stride 1 goes through :func:`detectron_libra.ops.conv3x3.conv3x3`.
    """

    @overload
    def forward(self, x: Tensor, *, relu: bool = False) -> Tensor: ...
    @overload
    def forward(self, x: Sequence[Tensor], *, relu: bool = False) -> list[Tensor]: ...
    def forward(self, x: Tensor | Sequence[Tensor], *, relu: bool = False) -> Tensor | list[Tensor]:
        """(N, C, H, W), or a list of them, to the outputs of the same kind."""
        if isinstance(x, Tensor):
            return self.apply_to([x], self.weight, self.bias, relu=relu)[0]
        return self.apply_to(x, self.weight, self.bias, relu=relu)

    def apply_to(
        self, levels: Sequence[Tensor], weight: Tensor, bias: Tensor | None, *, relu: bool = False
    ) -> list[Tensor]:
        """The convolution with other weights of the same shape, such as those a fixed scale was folded into."""
        if self.is_plain_3x3():
            return conv3x3(levels, weight, bias, relu=relu)
        if self.kernel_size == (1, 1) and self.groups == 1:
            outputs = [conv1x1(level, weight, bias, self.stride) for level in levels]
        else:
            rest = (self.stride, self.padding, self.dilation, self.groups)
            outputs = [F.conv2d(level, weight, bias, *rest) for level in levels]
        return [output.relu_() for output in outputs] if relu else outputs

    def is_plain_3x3(self) -> bool:
        """Stride 1, padding 1, no dilation, no groups."""
        shape = (self.kernel_size, self.stride, self.padding, self.dilation, self.groups, self.padding_mode)
        return shape == ((3, 3), (1, 1), (1, 1), (1, 1), 1, "zeros")


def conv1x1(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Sequence[int] = (1, 1)) -> Tensor:
    """1x1 convolution without padding.

    On one thread of a CPU PyTorch computes few float32 images by matrix products of its own instead of oneDNN's, which
    on some processors run at half the rate. Rows of pixels are as good as images here: in channels_last
    (N, C, H, W) is (N * H, C, 1, W) without a copy.

    Args:
        x: (N, C, H, W); weight: (K, C, 1, 1); bias: (K,) or None.
        stride: in y and x.
    """
    if not _as_rows_pays(x):
        return F.conv2d(x, weight, bias, tuple(stride))
    return RowsOfPixels.apply(x[:, :, :: stride[0], :: stride[1]], weight, bias)


class RowsOfPixels(torch.autograd.Function):
    """1x1 convolution of (x, weight, bias) with stride 1, both passes on rows of pixels.

    A function of its own, so that what comes out is no view, which an operation in place would have to copy.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        out = F.conv2d(_rows(x), weight, bias)
        images, _, height, width = x.shape
        shape = (images, len(weight), height, width)
        strides = (height * width * len(weight), 1, width * len(weight), len(weight))
        return out.new_empty(0).set_(out.untyped_storage(), 0, shape, strides)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        needed = list(ctx.needs_input_grad)
        grad_x, grad_weight, grad_bias = torch.ops.aten.convolution_backward(
            _rows(grad), _rows(x), weight, [len(weight)], [1, 1], [0, 0], [1, 1], False, [0, 0], 1, needed
        )
        if grad_x is not None:
            images, channels, height, width = x.shape
            grad_x = grad_x.permute(0, 2, 3, 1).reshape(images, height, width, channels).permute(0, 3, 1, 2)
        return grad_x, grad_weight, grad_bias


def _rows(x: Tensor) -> Tensor:
    """(N, C, H, W) as (N * H, C, 1, W), both in channels_last; copied only where x is in another format."""
    images, channels, height, width = x.shape
    return x.permute(0, 2, 3, 1).reshape(images * height, 1, width, channels).permute(0, 3, 1, 2)


def through(tower: nn.Sequential, levels: Sequence[Tensor]) -> list[Tensor]:
    """Each level through the layers of a tower: convolutions, each followed by a norm or not, and a ReLU or not.

    Args:
        tower: its layers, Conv2d among them.
        levels: (N, C, H_l, W_l) each.

    Returns:
        What calling the tower on each level gives; a convolution works on all of them together.
    """
    layers, levels, before = list(tower), list(levels), None
    for layer, following in zip(layers, [*layers[1:], None], strict=True):
        if isinstance(layer, Conv2d):
            levels = layer(levels, relu=isinstance(following, nn.ReLU))
        else:  # a ReLU that was done by the convolution before it changes nothing more, and costs a pass
            done = isinstance(layer, nn.ReLU) and isinstance(before, Conv2d)
            levels = levels if done else [layer(level) for level in levels]
        before = layer
    return levels


def _as_rows_pays(x: Tensor) -> bool:
    return (
        not torch.compiler.is_compiling()
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and x.numel() > 0
        and len(x) < FEW_IMAGES <= len(x) * x.shape[2]
        and not torch.is_autocast_enabled("cpu")
        and torch.get_num_threads() == 1
        and x.is_contiguous(memory_format=torch.channels_last)
    )
