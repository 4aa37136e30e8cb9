# SPDX-License-Identifier: Apache-2.0
"""Feature pyramid network. Source: Lin et al., arXiv:1612.03144; Detectron modeling/FPN.py."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional as F

from detectron_libra.errors import UsageError
from detectron_libra.modeling.convolution import Conv2d
from detectron_libra.modeling.init import xavier_fill_, zero_
from detectron_libra.modeling.norm import Groups, conv_norm, make_norm


def upsample_to(coarse: Tensor, fine: Tensor) -> Tensor:
    """``coarse`` repeated twice in both directions, cropped to the size of ``fine``.

    Every level of a padded image has an even size and loses nothing. An odd size comes from an image that was
    not padded; its last row or column repeats once.
    """
    (h, w), (fine_h, fine_w) = coarse.shape[-2:], fine.shape[-2:]
    if not (0 <= 2 * h - fine_h <= 1 and 0 <= 2 * w - fine_w <= 1):
        raise UsageError(
            f"FPN: a level of {h}x{w} follows one of {fine_h}x{fine_w}; each has to be half of the finer one "
            "(RESNETS.RES5_DILATION 1)"
        )
    return F.interpolate(coarse, scale_factor=2.0, mode="nearest")[..., :fine_h, :fine_w]


class FPN(nn.Module):
    """Features C_l of the backbone to levels P_min..P_max of one width.

    Children by level, for a table of weight names: ``lateral.<l>`` (1x1, ``fpn_inner_*``), ``output.<l>``
    (3x3, ``fpn_res*``), ``extra.<l>`` (``fpn_6``, ``fpn_7``), and ``lateral_norm.<l>``, ``output_norm.<l>``.

    Attributes:
        levels: (min_level, .., max_level).
        strides: stride in pixels of each level, 2^level.
        out_channels: channels of every level (``dim``).

    Args:
        in_channels: {level: channels} of the backbone; at least min_level up to its coarsest.
        dim: channels of the pyramid.
        min_level, max_level: first and last level.
        extra_convs: how levels above the backbone's coarsest (C5) come about: P6 = 3x3 convolution with
            stride 2 on C5 and P7 = the same on ReLU(P6) (RetinaNet), else P6 = every second cell of P5.
        extra_from_output: P6 of ``extra_convs`` is a convolution of P5 instead, as in torchvision.
        extra_relu: the ReLU between P6 and P7; mmdetection's Libra RetinaNet has none.
        norm: ``none``, ``group`` or ``batch``, after lateral and output convolutions, which then lack a bias.
        norm_groups, norm_eps: see ``make_norm``.
        zero_init_lateral: lateral convolutions other than the coarsest start at 0.

    Raises:
        UsageError: levels that the backbone does not give, or an unknown norm.
    """

    def __init__(
        self,
        in_channels: Mapping[int, int],
        *,
        dim: int = 256,
        min_level: int = 2,
        max_level: int = 6,
        extra_convs: bool = False,
        extra_relu: bool = True,
        extra_from_output: bool = False,
        norm: str = "none",
        norm_groups: Groups = 32,
        norm_eps: float = 1e-5,
        zero_init_lateral: bool = False,
    ):
        super().__init__()
        top = max(in_channels)
        missing = [level for level in range(min_level, top + 1) if level not in in_channels]
        if missing or not min_level <= top <= max_level:
            raise UsageError(
                f"FPN: levels {min_level}..{max_level} from a backbone with {sorted(in_channels)}"
            )
        if max_level > top + 1 and not extra_convs:
            raise UsageError(
                f"FPN: level {max_level} needs FPN.EXTRA_CONV_LEVELS; pooling gives {top + 1} at most"
            )
        self.levels = tuple(range(min_level, max_level + 1))
        self.strides = tuple(2**level for level in self.levels)
        self.out_channels = dim
        self.backbone_levels = tuple(range(min_level, top + 1))
        self.extra_relu, self.extra_from_output = extra_relu, extra_from_output

        bias = norm == "none"
        lateral, output, lateral_norm, output_norm, extra = ({} for _ in range(5))
        for level in self.backbone_levels:
            lateral[str(level)] = Conv2d(in_channels[level], dim, 1, bias=bias)
            output[str(level)] = Conv2d(dim, dim, 3, padding=1, bias=bias)
            lateral_norm[str(level)] = make_norm(norm, dim, groups=norm_groups, eps=norm_eps)
            output_norm[str(level)] = make_norm(norm, dim, groups=norm_groups, eps=norm_eps)
        if extra_convs:
            for level in range(top + 1, max_level + 1):
                inputs = in_channels[top] if level == top + 1 and not extra_from_output else dim
                extra[str(level)] = Conv2d(inputs, dim, 3, stride=2, padding=1)
        self.lateral, self.output = nn.ModuleDict(lateral), nn.ModuleDict(output)
        self.lateral_norm, self.output_norm = nn.ModuleDict(lateral_norm), nn.ModuleDict(output_norm)
        self.extra = nn.ModuleDict(extra)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                xavier_fill_(module)
        if zero_init_lateral:
            zero_(self.lateral[str(level)] for level in self.backbone_levels[:-1])

    def forward(self, features: Mapping[int, Tensor]) -> list[Tensor]:
        """Levels of the pyramid, fine to coarse.

        Args:
            features: {level: (N, in_channels[level], H_l, W_l)}, each half of the finer one, rounded up.

        Returns:
            One (N, dim, H_l, W_l) for each of ``levels``.

        Raises:
            UsageError: a level is not half the size of the next finer one.
        """
        outputs: list[Tensor] = []
        merged: Tensor | None = None
        for level in map(str, reversed(self.backbone_levels)):
            lateral = conv_norm(features[int(level)], self.lateral[level], self.lateral_norm[level])
            merged = lateral if merged is None else lateral + upsample_to(merged, lateral)
            outputs.insert(0, conv_norm(merged, self.output[level], self.output_norm[level]))
        return outputs + self.coarser_levels(features[self.backbone_levels[-1]], outputs[-1])

    def coarser_levels(self, feature: Tensor, output: Tensor) -> list[Tensor]:
        """Levels above the backbone, from its coarsest ``feature`` (C5) or from its ``output`` (P5)."""
        missing = self.levels[len(self.backbone_levels) :]
        if not self.extra:
            return [F.max_pool2d(output, 1, stride=2) for _ in missing]
        levels: list[Tensor] = []
        first = output if self.extra_from_output else feature
        for level in missing:
            source = levels[-1] if levels else first
            if levels and self.extra_relu:
                source = source.relu()
            levels.append(self.extra[str(level)](source))
        return levels
