# SPDX-License-Identifier: Apache-2.0
"""Non-local block (embedded Gaussian) whose memory grows with the number of positions, not with its square.

Source: Wang et al., arXiv:1711.07971, as Libra R-CNN uses it: no 1/sqrt(C), no subsampling, as many inner
channels as outer ones.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from detectron_libra.errors import UsageError
from detectron_libra.modeling.convolution import Conv2d
from detectron_libra.modeling.norm import conv_norm, make_norm

ATTENTIONS = ("auto", "sdpa", "tiled", "explicit")

# Up to here the matrix of weights is stored (4 MB an image in float32) rather than computed a second time.
EXPLICIT_POSITIONS = 1024
# Weights computed at a time by the tiled form, all images together: 16 MB in float32, enough rows to keep a
# matrix product busy.
TILE_ELEMENTS = 2**22
# CUDA's fused kernels need channels in multiples of 8 (16 bytes of bfloat16) and have no float64.
FUSED_CHANNEL_MULTIPLE = 8


def attend(query: Tensor, key: Tensor, value: Tensor, *, how: str = "auto") -> Tensor:
    """softmax(query key^T) value, without scaling.

    Args:
        query, key, value: (N, P, C) float, P positions.
        how: ``sdpa``: PyTorch's fused kernel; ``tiled``: blocks of rows, computed again in the backward pass;
            ``explicit``: the P x P matrix is stored; ``auto``: the fastest of them that stores no matrix of
            more than 1024 positions.

    Returns:
        (N, P, C), dtype of ``value``.

    Raises:
        UsageError: unknown ``how``.
    """
    if how not in ATTENTIONS:
        raise UsageError(f"attention: {how!r} is unknown; use one of {', '.join(ATTENTIONS)}")
    if how == "auto":
        how = choose(query)
    if how == "explicit":
        return torch.bmm(torch.softmax(torch.bmm(query, centred(key).mT), dim=-1).to(value.dtype), value)
    if how == "tiled":
        return TiledAttention.apply(query, centred(key), value)
    # One head of its own dimension: fused kernels take four dimensions, and innermost strides of 1.
    heads = (t.contiguous()[:, None] for t in (query, key, value))
    return F.scaled_dot_product_attention(*heads, scale=1.0)[:, 0]


def choose(query: Tensor) -> str:
    """The fastest way for (N, P, C) ``query`` that stores no P x P matrix above EXPLICIT_POSITIONS.

    On the CPU the fused kernel wins in float32, and takes twice as long as matrix products in bfloat16.
    """
    if query.device.type == "cpu":
        fused = query.dtype == torch.float32
    else:
        fused = query.dtype != torch.float64 and query.shape[-1] % FUSED_CHANNEL_MULTIPLE == 0
    if fused:
        return "sdpa"
    return "explicit" if query.shape[1] <= EXPLICIT_POSITIONS else "tiled"


def centred(key: Tensor) -> Tensor:
    """``key`` minus its mean over positions: the same softmax from smaller numbers.

    A constant added to a row of logits changes nothing in exact arithmetic, but logits are rounded to their
    dtype, and bfloat16 keeps less than three digits. Source: shift invariance of the softmax.
    """
    return key - key.mean(dim=1, keepdim=True)


def row_blocks(images: int, positions: int) -> list[slice]:
    """Blocks of query rows such that one block's weights stay near TILE_ELEMENTS."""
    rows = max(16, TILE_ELEMENTS // max(images * positions, 1))
    return [slice(start, start + rows) for start in range(0, positions, rows)]


class TiledAttention(torch.autograd.Function):
    """softmax(query key^T) value over blocks of rows; the backward pass computes each block's weights again.

    Stores query, key, value and the output: 4 N P C elements. Gradients of key and value are summed over
    blocks in float32, or float64 where the input is.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """(N, P, C) each; returns (N, P, C)."""
        output = torch.empty_like(value)
        with torch.autocast(query.device.type, enabled=False):
            for rows in row_blocks(*query.shape[:2]):
                weights = torch.softmax(torch.bmm(query[:, rows], key.mT), dim=-1)
                output[:, rows] = torch.bmm(weights, value)
        ctx.save_for_backward(query, key, value, output)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of query, key and value."""
        query, key, value, output = ctx.saved_tensors
        exact = torch.promote_types(query.dtype, torch.float32)
        grad_query = torch.empty_like(query)
        grad_key, grad_value = torch.zeros_like(key, dtype=exact), torch.zeros_like(value, dtype=exact)
        with torch.autocast(query.device.type, enabled=False):
            for rows in row_blocks(*query.shape[:2]):
                weights = torch.softmax(torch.bmm(query[:, rows], key.mT), dim=-1)
                grad_rows = grad[:, rows]
                grad_value += torch.bmm(weights.mT, grad_rows)
                # The softmax's gradient subtracts the mean of grad_weights under weights: <grad, output>.
                mean = (grad_rows.to(exact) * output[:, rows]).sum(-1, keepdim=True).to(query.dtype)
                grad_logits = torch.bmm(grad_rows, value.mT).sub_(mean).mul_(weights)
                grad_query[:, rows] = torch.bmm(grad_logits, key)
                grad_key += torch.bmm(grad_logits.mT, query[:, rows])
        return grad_query, grad_key.to(key.dtype), grad_value.to(value.dtype)


class NonLocal(nn.Module):
    """x + conv_out(softmax(theta(x)^T phi(x)) g(x)), all four convolutions 1x1.

    Args:
        channels: of input and output, and inside.
        norm: None or a kind of ``make_norm``, after ``conv_out`` alone, which then has no bias.
        attention: see :func:`attend`.
    """

    def __init__(self, channels: int, *, norm: str | None = None, attention: str = "auto"):
        super().__init__()
        if attention not in ATTENTIONS:
            raise UsageError(f"attention: {attention!r} is unknown; use one of {', '.join(ATTENTIONS)}")
        self.attention = attention
        self.g = Conv2d(channels, channels, 1)
        self.theta = Conv2d(channels, channels, 1)
        self.phi = Conv2d(channels, channels, 1)
        self.norm = make_norm(norm or "none", channels)
        self.conv_out = Conv2d(channels, channels, 1, bias=isinstance(self.norm, nn.Identity))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) float to the same shape and memory format."""
        n, c, h, w = x.shape
        query, key, value = (conv(x).flatten(2).mT for conv in (self.theta, self.phi, self.g))
        y = attend(query, key, value, how=self.attention).mT.reshape(n, c, h, w)
        if x.is_contiguous():
            y = y.contiguous()
        return x + conv_norm(y, self.conv_out, self.norm)
