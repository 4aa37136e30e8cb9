# SPDX-License-Identifier: Apache-2.0
"""ResNet and ResNeXt as Detectron builds them. Source: Detectron modeling/ResNet.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from detectron_libra.errors import UsageError
from detectron_libra.modeling.backbones.blocks import (
    BasicBlock,
    BlockStyle,
    BottleneckBlock,
    make_conv,
    make_stage,
)
from detectron_libra.modeling.init import kaiming_normal_, xavier_fill_
from detectron_libra.modeling.norm import Groups, conv_norm

# Stages have the numbers of their outputs C2..C5: stage 2 is the first, and C_l has a stride of 2^l pixels.
FIRST_STAGE = 2
STEM_STRIDE = 4
# ``width_per_group`` is counted in a network of this width.
REFERENCE_WIDTH = 64
FREEZE_CHOICES = (0, 2, 3, 4, 5)
BLOCKS: dict[str, type[BasicBlock] | type[BottleneckBlock]] = {
    "basic": BasicBlock,
    "bottleneck": BottleneckBlock,
}
STEM_KERNELS = {"7x7": 7, "3x3": 3}

# Name -> arguments of ResNet. A user's own keys override them one by one.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "resnet18": {"stage_blocks": (2, 2, 2, 2), "block": "basic"},
    "resnet34": {"stage_blocks": (3, 4, 6, 3), "block": "basic"},
    "resnet50": {"stage_blocks": (3, 4, 6, 3), "block": "bottleneck"},
    "resnet101": {"stage_blocks": (3, 4, 23, 3), "block": "bottleneck"},
    "resnet152": {"stage_blocks": (3, 8, 36, 3), "block": "bottleneck"},
    "resnext101_32x8d": {
        "stage_blocks": (3, 4, 23, 3),
        "block": "bottleneck",
        "groups": 32,
        "width_per_group": 8,
        "stride_in_1x1": False,
    },
    "resnext101_64x4d": {
        "stage_blocks": (3, 4, 23, 3),
        "block": "bottleneck",
        "groups": 64,
        "width_per_group": 4,
        "stride_in_1x1": False,
    },
    # For images of 256 to 320 pixels: half of ResNet-34's channels, one block more, and a stem that does not
    # spend a 7x7 window on small pictures.
    "resnet36_tiny": {"stage_blocks": (3, 4, 7, 3), "block": "basic", "width": 32, "stem": "3x3"},
}


def stage_channels(stage: int, width: int, block: type[BasicBlock] | type[BottleneckBlock]) -> int:
    """Output channels of ``stage`` (2..5)."""
    return width * 2 ** (stage - FIRST_STAGE) * block.expansion


def bottleneck_channels(stage: int, width: int, groups: int, width_per_group: int) -> int:
    """Channels of the 3x3 convolutions of ``stage`` in a bottleneck; UsageError if not whole per group."""
    narrowest = groups * width_per_group * width // REFERENCE_WIDTH
    if narrowest < 1 or narrowest % groups:
        raise UsageError(
            f"width_per_group: {width_per_group} gives {narrowest} channels to {groups} groups; "
            "at this width the groups need an equal and whole number"
        )
    return narrowest * 2 ** (stage - FIRST_STAGE)


def resnet_stage(
    stage: int,
    count: int,
    block: type[BasicBlock] | type[BottleneckBlock],
    style: BlockStyle,
    *,
    width: int,
    width_per_group: int,
    stride: int,
    dilation: int = 1,
) -> nn.Sequential:
    """Stage 2..5 of a network with these channels; a C4 model has its stage 5 in the head.

    Args:
        stage: its number.
        count: residual blocks.
        block, style: their kind.
        width, width_per_group: see ``ResNet``.
        stride: of the first block.
        dilation: of the 3x3 convolutions.
    """
    outputs = mid = stage_channels(stage, width, block)
    if block is BottleneckBlock:
        mid = bottleneck_channels(stage, width, style.groups, width_per_group)
    inputs = width if stage == FIRST_STAGE else stage_channels(stage - 1, width, block)
    return make_stage(
        block,
        count,
        style,
        in_channels=inputs,
        mid_channels=mid,
        out_channels=outputs,
        stride=stride,
        dilation=dilation,
    )


def check_choice(name: str, value: Any, choices: Any) -> None:
    """UsageError naming the argument, where ``value`` is not one of ``choices``."""
    if value not in choices:
        raise UsageError(f"{name}: {value!r} is unknown; use one of {', '.join(map(str, choices))}")


def init_weights(net: nn.Module, *, from_scratch: bool, zero_init_residual: bool) -> None:
    """Random weights of all convolutions: He's rule from scratch, else Detectron's default, XavierFill."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            (kaiming_normal_ if from_scratch else xavier_fill_)(module)
    if not zero_init_residual:
        return
    for module in net.modules():
        if isinstance(module, BasicBlock | BottleneckBlock) and hasattr(module.last_norm(), "weight"):
            nn.init.zeros_(module.last_norm().weight)


class Stem(nn.Module):
    """Convolution with stride 2, normalisation, ReLU, 3x3 max-pool with stride 2."""

    def __init__(self, channels: int, kernel: int, style: BlockStyle):
        super().__init__()
        self.conv = make_conv(3, channels, kernel, stride=2, bias=style.bias)
        self.norm = style.make_norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, channels, ceil(ceil(H / 2) / 2), ceil(ceil(W / 2) / 2))."""
        return F.max_pool2d(conv_norm(x, self.conv, self.norm, relu=True), 3, stride=2, padding=1)


class ResNet(nn.Module):
    """Image to features C2..C5.

    Children are named as Detectron's blobs: ``stem.{conv,norm}`` and
    ``res<S>.<i>.{conv1,norm1,conv2,norm2,conv3,norm3,shortcut,shortcut_norm}`` for
    ``res<S>_<i>_branch{2a,2b,2c,1}``.

    Attributes:
        out_channels: {stage: channels} of the outputs.
        strides: {stage: stride in pixels of the input} of the outputs.

    Args:
        stage_blocks: residual blocks of stages 2, 3, 4 and 5.
        block: ``bottleneck`` or ``basic``.
        width: channels of the stem; stage S gives ``width * 2^(S-2)``, four times that with bottlenecks.
        groups, width_per_group: of the bottlenecks' 3x3 convolutions, which have
            ``groups * width_per_group * width / 64 * 2^(S-2)`` channels.
        stride_in_1x1: where a bottleneck strides (see BlockStyle).
        stem: ``7x7``, or ``3x3`` (lighter, for small images).
        norm, norm_groups, norm_eps: see ``make_norm``. Convolutions start from Detectron's XavierFill with
            ``affine`` (such a net is meant to be loaded), else from He's rule.
        zero_init_residual: the last normalisation of every block starts at 0, so that a block starts as
            identity (``batch`` and ``group``).
        freeze_at: 0, or the last stage (2..5) that is not trained; the stem is then fixed too, normalisation
            statistics included, and no gradient enters.
        res5_dilation: dilation of stage 5, which then has stride 1 (Detectron's RES5_DILATION).
        out_stages: stages whose output is returned; the network ends after the last of them.
        recompute: in training keep the input of each block alone, and run the block again in the backward pass.

    Raises:
        UsageError: an argument outside its choices.
    """

    def __init__(
        self,
        *,
        stage_blocks: Sequence[int] = (3, 4, 6, 3),
        block: str = "bottleneck",
        width: int = 64,
        groups: int = 1,
        width_per_group: int = 64,
        stride_in_1x1: bool = True,
        stem: str = "7x7",
        norm: str = "affine",
        norm_groups: Groups = 32,
        norm_eps: float = 1e-5,
        zero_init_residual: bool = False,
        freeze_at: int = 2,
        res5_dilation: int = 1,
        out_stages: Sequence[int] = (2, 3, 4, 5),
        recompute: bool = False,
    ):
        super().__init__()
        check_choice("block", block, BLOCKS)
        check_choice("stem", stem, STEM_KERNELS)
        check_choice("freeze_at", freeze_at, FREEZE_CHOICES)
        if len(stage_blocks) != 4 or min(stage_blocks) < 1:
            raise UsageError(f"stage_blocks: {tuple(stage_blocks)} is not four numbers of blocks, each >= 1")
        self.freeze_at, self.recompute = freeze_at, recompute
        self.out_stages = tuple(sorted(out_stages))
        self.stages = tuple(range(FIRST_STAGE, max(out_stages) + 1))
        self.out_channels: dict[int, int] = {}
        self.strides: dict[int, int] = {}
        style = BlockStyle(norm, norm_groups, norm_eps, groups, stride_in_1x1)
        self.stem = Stem(width, STEM_KERNELS[stem], style)
        kind, total_stride = BLOCKS[block], STEM_STRIDE
        for stage, count in zip(self.stages, stage_blocks, strict=False):
            dilation = res5_dilation if stage == 5 else 1
            stride = 1 if stage == FIRST_STAGE or dilation > 1 else 2
            blocks = resnet_stage(
                stage,
                count,
                kind,
                style,
                width=width,
                width_per_group=width_per_group,
                stride=stride,
                dilation=dilation,
            )
            self.add_module(f"res{stage}", blocks)
            total_stride *= stride
            if stage in self.out_stages:
                self.out_channels[stage] = stage_channels(stage, width, kind)
                self.strides[stage] = total_stride
        init_weights(self, from_scratch=norm != "affine", zero_init_residual=zero_init_residual)
        for part in self.frozen_parts():
            part.requires_grad_(False)

    def frozen_parts(self) -> list[nn.Module]:
        """The stem and the stages up to ``freeze_at``."""
        if self.freeze_at == 0:
            return []
        return [self.stem, *(getattr(self, f"res{s}") for s in self.stages if s <= self.freeze_at)]

    def train(self, mode: bool = True) -> ResNet:
        """As for any module, but frozen parts stay in evaluation mode: their statistics are fixed as well."""
        super().train(mode)
        for part in self.frozen_parts():
            part.eval()
        return self

    def run_stage(self, blocks: nn.Sequential, x: Tensor, *, again: bool) -> Tensor:
        """One stage; ``again``: its blocks run once more in the backward pass."""
        if not (again and self.training and torch.is_grad_enabled()):
            return blocks(x)
        for block in blocks:  # none draws random numbers, whose state would have to be kept
            x = checkpoint(block, x, use_reentrant=False, preserve_rng_state=False)
        return x

    def forward(self, x: Tensor) -> dict[int, Tensor]:
        """Features of every stage in ``out_stages``.

        Args:
            x: (N, 3, H, W) float, normalised; contiguous or channels_last, and the features are the same.

        Returns:
            {stage: (N, out_channels[stage], ~H / strides[stage], ~W / strides[stage])}, sizes rounded up.
        """
        features: dict[int, Tensor] = {}
        x = self.stem(x)
        for stage in self.stages:
            x = self.run_stage(
                getattr(self, f"res{stage}"), x, again=self.recompute and stage > self.freeze_at
            )
            if stage <= self.freeze_at:
                x = x.detach()
            if stage in self.out_stages:
                features[stage] = x
        return features
