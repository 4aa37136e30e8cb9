# SPDX-License-Identifier: Apache-2.0
"""Residual blocks, and stages made of them.

Source: He et al., arXiv:1512.03385; Xie et al., arXiv:1611.05431.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from detectron_libra.modeling.convolution import Conv2d
from detectron_libra.modeling.norm import Groups, conv_norm, make_norm


def make_conv(
    inputs: int, outputs: int, kernel: int, *, stride: int = 1, dilation: int = 1, groups: int = 1, bias: bool
) -> Conv2d:
    """A convolution that keeps the size but for its stride: ceil(H / stride) rows (odd ``kernel``)."""
    padding = dilation * (kernel // 2)
    return Conv2d(inputs, outputs, kernel, stride, padding, dilation, groups, bias)


def make_stage(
    block: type[ResidualBlock],
    count: int,
    style: BlockStyle,
    *,
    in_channels: int,
    mid_channels: int,
    out_channels: int,
    stride: int,
    dilation: int = 1,
) -> nn.Sequential:
    """``count`` residual blocks; the first one has the stride and takes ``in_channels``.

    Args:
        block: BasicBlock or BottleneckBlock.
        style: what all blocks of a network share.
        mid_channels: of the inner 3x3 convolution of a bottleneck (the basic block has none of its own).
        stride: of the first block.
        dilation: of the 3x3 convolutions.

    Returns:
        (N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride)).
    """
    sizes = {"mid": mid_channels, "outputs": out_channels, "dilation": dilation, "style": style}
    first = block(inputs=in_channels, stride=stride, **sizes)
    return nn.Sequential(first, *(block(inputs=out_channels, stride=1, **sizes) for _ in range(count - 1)))


@dataclass(frozen=True)
class BlockStyle:
    """What all blocks of a network share.

    Attributes:
        norm, norm_groups, norm_eps: of :func:`detectron_libra.modeling.norm.make_norm`.
        groups: of the 3x3 convolutions (ResNeXt: more than 1).
        stride_in_1x1: a bottleneck's stride is in its first 1x1 convolution (Detectron's ResNet), else in the
            3x3 (ResNeXt, torchvision).
    """

    norm: str = "affine"
    norm_groups: Groups = 32
    norm_eps: float = 1e-5
    groups: int = 1
    stride_in_1x1: bool = True

    @property
    def bias(self) -> bool:
        """Whether convolutions have a bias of their own."""
        return self.norm == "none"

    def make_norm(self, channels: int) -> nn.Module:
        """A normalisation layer of this style."""
        return make_norm(self.norm, channels, groups=self.norm_groups, eps=self.norm_eps)


class ResidualBlock(nn.Module):
    """What both kinds share: the shortcut, a 1x1 convolution where the shape changes, else nothing."""

    def __init__(self, *, inputs: int, outputs: int, stride: int, style: BlockStyle):
        super().__init__()
        self.shortcut: Conv2d | None = None
        self.shortcut_norm: nn.Module | None = None
        if inputs != outputs or stride != 1:
            self.shortcut = make_conv(inputs, outputs, 1, stride=stride, bias=style.bias)
            self.shortcut_norm = style.make_norm(outputs)

    def add_shortcut(self, x: Tensor, branch: Tensor) -> Tensor:
        """ReLU of the sum, written into ``branch``: no backward pass needs its values."""
        if self.shortcut is not None and self.shortcut_norm is not None:
            x = conv_norm(x, self.shortcut, self.shortcut_norm)
        return branch.add_(x).relu_()

    def last_norm(self) -> nn.Module:
        """The normalisation before the sum."""
        raise NotImplementedError


class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions (ResNet-18 and 34, and the tiny family); the stride is in the first."""

    expansion = 1

    def __init__(self, *, inputs: int, mid: int, outputs: int, stride: int, dilation: int, style: BlockStyle):
        super().__init__(inputs=inputs, outputs=outputs, stride=stride, style=style)
        conv = {"dilation": dilation, "groups": style.groups, "bias": style.bias}
        self.conv1 = make_conv(inputs, outputs, 3, stride=stride, **conv)
        self.norm1 = style.make_norm(outputs)
        self.conv2 = make_conv(outputs, outputs, 3, **conv)
        self.norm2 = style.make_norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, ceil(H / stride), ceil(W / stride))."""
        branch = conv_norm(x, self.conv1, self.norm1, relu=True)
        return self.add_shortcut(x, conv_norm(branch, self.conv2, self.norm2))

    def last_norm(self) -> nn.Module:
        return self.norm2


class BottleneckBlock(ResidualBlock):
    """1x1 to ``mid`` channels, 3x3, 1x1 to ``outputs`` (ResNet-50 and deeper, ResNeXt)."""

    expansion = 4

    def __init__(self, *, inputs: int, mid: int, outputs: int, stride: int, dilation: int, style: BlockStyle):
        super().__init__(inputs=inputs, outputs=outputs, stride=stride, style=style)
        first, second = (stride, 1) if style.stride_in_1x1 else (1, stride)
        self.conv1 = make_conv(inputs, mid, 1, stride=first, bias=style.bias)
        self.norm1 = style.make_norm(mid)
        self.conv2 = make_conv(
            mid, mid, 3, stride=second, dilation=dilation, groups=style.groups, bias=style.bias
        )
        self.norm2 = style.make_norm(mid)
        self.conv3 = make_conv(mid, outputs, 1, bias=style.bias)
        self.norm3 = style.make_norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, ceil(H / stride), ceil(W / stride))."""
        branch = conv_norm(x, self.conv1, self.norm1, relu=True)
        branch = conv_norm(branch, self.conv2, self.norm2, relu=True)
        return self.add_shortcut(x, conv_norm(branch, self.conv3, self.norm3))

    def last_norm(self) -> nn.Module:
        return self.norm3
