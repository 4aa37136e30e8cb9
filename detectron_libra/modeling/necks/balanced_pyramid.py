# SPDX-License-Identifier: Apache-2.0
"""Balanced feature pyramid. Source: Libra R-CNN, arXiv:1904.02701, section 3.2."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from detectron_libra.errors import UsageError
from detectron_libra.modeling.convolution import Conv2d
from detectron_libra.modeling.init import kaiming_normal_, normal_, xavier_uniform_, zero_
from detectron_libra.modeling.necks.non_local import NonLocal
from detectron_libra.modeling.norm import conv_norm, make_norm
from detectron_libra.ops.pyramid import balance

REFINES = ("none", "conv", "non_local")
INITS = ("zero", "xavier")

# Of theta, phi and g in the form whose last layer starts at 0. Source: mmcv NonLocal.
EMBEDDING_STD = 0.01


class ConvRefine(nn.Module):
    """ReLU(norm(3x3 convolution))."""

    def __init__(self, channels: int, *, norm: str | None = None):
        super().__init__()
        self.norm = make_norm(norm or "none", channels)
        self.conv = Conv2d(channels, channels, 3, padding=1, bias=isinstance(self.norm, nn.Identity))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        return conv_norm(x, self.conv, self.norm, relu=True)


def init_refine(refine: nn.Module, init: str) -> None:
    """Initial weights of a refinement.

    ``xavier``: Glorot's rule for every convolution, so that the block acts from the first step (as in the
    published results). ``zero``: a non-local block starts as identity: embeddings N(0, 0.01), and 0 in its
    last layer, which is the norm where there is one. The 3x3 convolution starts from He's rule instead: at 0
    its ReLU would let no gradient through, for ever.
    """
    convs = [module for module in refine.modules() if isinstance(module, nn.Conv2d)]
    if init == "xavier":
        for conv in convs:
            xavier_uniform_(conv)
    elif isinstance(refine, NonLocal):
        for conv in (refine.theta, refine.phi, refine.g):
            normal_(conv, EMBEDDING_STD)
        xavier_uniform_(refine.conv_out)
        zero_([refine.conv_out if isinstance(refine.norm, nn.Identity) else refine.norm])
    else:
        for conv in convs:
            kaiming_normal_(conv)


class BalancedFeaturePyramid(nn.Module):
    """Adds to every level of a pyramid what all levels, averaged at one size and refined, have in common.

    Usable behind any neck: it needs a list of levels with the same number of channels.

    Attributes:
        levels: numbers of the levels, as given.
        out_channels: ``channels``.

    Args:
        channels: C, of every level.
        levels: numbers of the levels, fine to coarse: (2, 3, 4, 5, 6), or (3, 4, 5, 6, 7) for RetinaNet.
        refine_level: number of the level at whose size levels are averaged (4 = P4, stride 16).
        refine: ``non_local``, ``conv`` (3x3 and ReLU) or ``none``.
        init: ``zero`` or ``xavier``, see :func:`init_refine`.
        norm: None, ``batch`` or ``group``, in the refinement.
        attention: of the non-local block: ``auto`` (memory linear in the positions), ``sdpa``, ``tiled``, or
            ``explicit`` (stores the matrix).

    Raises:
        UsageError: an argument outside its choices, or ``refine_level`` not among ``levels``.

    Source: the paper says four levels; the published results have these five.
    """

    def __init__(
        self,
        channels: int,
        *,
        levels: Sequence[int] = (2, 3, 4, 5, 6),
        refine_level: int = 4,
        refine: str = "non_local",
        init: str = "zero",
        norm: str | None = None,
        attention: str = "auto",
    ):
        super().__init__()
        if refine not in REFINES:
            raise UsageError(f"refine: {refine!r} is unknown; use one of {', '.join(REFINES)}")
        if init not in INITS:
            raise UsageError(f"init: {init!r} is unknown; use one of {', '.join(INITS)}")
        if refine_level not in levels:
            raise UsageError(f"refine_level: {refine_level} is not one of the levels {tuple(levels)}")
        self.levels = tuple(levels)
        self.out_channels = channels
        self.refine_index = self.levels.index(refine_level)
        self.refine: nn.Module | None = None
        if refine == "non_local":
            self.refine = NonLocal(channels, norm=norm, attention=attention)
        elif refine == "conv":
            self.refine = ConvRefine(channels, norm=norm)
        if self.refine is not None:
            init_refine(self.refine, init)

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Balanced levels.

        Args:
            levels: one (N, C, H_l, W_l) float tensor for each of ``self.levels``, fine to coarse; any sizes.

        Returns:
            A list of the same shapes.

        Raises:
            UsageError: another number of levels or of channels.
        """
        if len(levels) != len(self.levels):
            raise UsageError(f"balanced pyramid: {len(levels)} levels given, made for levels {self.levels}")
        channels = [level.shape[1] for level in levels]
        if any(c != self.out_channels for c in channels):
            raise UsageError(f"balanced pyramid: levels of {channels} channels, made for {self.out_channels}")
        # A CUDA autocast leaves normalised levels in float32 and the bare convolutions above them in half.
        dtype = functools.reduce(torch.promote_types, (level.dtype for level in levels))
        levels = [level.to(dtype) for level in levels]
        return list(balance(levels, self.refine_index, self.refine))
