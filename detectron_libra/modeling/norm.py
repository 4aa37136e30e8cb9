# SPDX-License-Identifier: Apache-2.0
"""Normalisation layers by name, and the one place that joins a convolution with what follows it."""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

import torch
from torch import Tensor, nn

from detectron_libra.errors import UsageError
from detectron_libra.modeling.convolution import Conv2d

NORMS = ("affine", "batch", "group", "none")

# Below two channels a group normalisation sees one channel: at 1 x 1 pixels its output would be a constant.
MIN_CHANNELS_PER_GROUP = 2


@dataclass(frozen=True)
class ChannelsPerGroup:
    """Says how many channels a group has, where otherwise the number of groups is said."""

    channels: int


#: Groups of a GroupNorm: their number, or their size.
Groups = int | ChannelsPerGroup


def group_count(channels: int, groups: Groups) -> int:
    """The number of groups for ``channels``: ``groups`` where it fits, else a common divisor.

    Keeps at least two channels a group: 32 groups for 64 channels and more (Detectron's numbers), 16 for 32,
    4 for 24. ``ChannelsPerGroup`` has to fit.

    Raises:
        UsageError: the channels are no multiple of those of a group.

    Source: Detectron's utils/net.py, get_group_gn.
    """
    if isinstance(groups, ChannelsPerGroup):
        if channels % groups.channels:
            raise UsageError(
                f"GROUP_NORM.DIM_PER_GP: {groups.channels} does not divide {channels} channels; set a divisor, or "
                "GROUP_NORM.NUM_GROUPS instead"
            )
        return channels // groups.channels
    if channels % groups == 0 and channels // groups >= MIN_CHANNELS_PER_GROUP:
        return groups
    return gcd(groups, max(channels // MIN_CHANNELS_PER_GROUP, 1))


def make_norm(kind: str, channels: int, *, groups: Groups = 32, eps: float = 1e-5) -> nn.Module:
    """A normalisation layer; a fresh one leaves statistics as they are (weight 1, bias 0).

    Args:
        kind: ``affine``: fixed scale and shift (frozen statistics of pretrained weights); ``batch``:
            BatchNorm with running statistics; ``group``: GroupNorm, for small batches and random weights;
            ``none``: nothing, the convolution then has a bias.
        channels: channels of the input.
        groups: of ``group``; a number is reduced by :func:`group_count` where the channels are few.
        eps: added to the variance (``batch`` and ``group``).

    Returns:
        A module that maps (N, C, H, W) to the same shape and dtype.

    Raises:
        UsageError: unknown ``kind``.
    """
    if kind == "affine":
        return FrozenAffine(channels)
    if kind == "batch":
        return nn.BatchNorm2d(channels, eps=eps)
    if kind == "group":
        return nn.GroupNorm(group_count(channels, groups), channels, eps=eps)
    if kind == "none":
        return nn.Identity()
    raise UsageError(f"norm: {kind!r} is unknown; use one of {', '.join(NORMS)}")


def conv_norm(x: Tensor, conv: Conv2d, norm: nn.Module, *, relu: bool = False) -> Tensor:
    """``norm(conv(x))``; a fixed affine is folded into the convolution, which saves a pass over the output.

    Args:
        x: (N, C_in, H, W) float.
        conv: square stride, padding and dilation as usual; without a bias where ``norm`` is a FrozenAffine.
        norm: what :func:`make_norm` gave.
        relu: return the part above 0.

    Returns:
        (N, C_out, H', W'), in the dtype that the convolution gives.
    """
    if isinstance(norm, nn.Identity):
        return conv(x, relu=relu)
    if isinstance(norm, FrozenAffine) and conv.bias is None:
        weight = conv.weight * norm.weight[:, None, None, None]
        return conv.apply_to([x], weight, norm.bias, relu=relu)[0]
    normed = norm(conv(x))
    return normed.relu_() if relu else normed


class FrozenAffine(nn.Module):
    """y = weight * x + bias per channel, both fixed: buffers, never trained, no statistics.

    Source: Detectron's AffineChannel (``*_bn_s``, ``*_bn_b``), which returns no gradient for them.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, channels: int):
        super().__init__()
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape and dtype."""
        weight, bias = (p.to(x.dtype)[:, None, None] for p in (self.weight, self.bias))
        return torch.addcmul(bias, x, weight)

    def extra_repr(self) -> str:
        return str(len(self.weight))
