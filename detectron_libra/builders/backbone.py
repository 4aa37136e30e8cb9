# SPDX-License-Identifier: Apache-2.0
"""Configuration to backbone and pyramid: Detectron's function names, and what the other keys change."""

import re
from typing import Any

from torch import nn

from detectron_libra.config.checks import pyramid_levels
from detectron_libra.config.schema import Config
from detectron_libra.errors import UsageError
from detectron_libra.modeling.backbones.resnet import ARCHITECTURES, ResNet
from detectron_libra.modeling.necks.balanced_pyramid import BalancedFeaturePyramid
from detectron_libra.modeling.necks.fpn import FPN
from detectron_libra.modeling.preprocess import Preprocess

#: FPN.add_fpn_ResNet50_conv5_body and its variants with P2only, or a name of ARCHITECTURES in ResNet50's place.
BODY = re.compile(r"^FPN\.add_fpn_(?P<name>\w+?)_conv5(?P<single>_P2only)?_body$")


def architecture(cfg: Config) -> dict[str, Any]:
    """Arguments of ``ResNet`` that MODEL.CONV_BODY and the keys of RESNETS say.

    Raises:
        UsageError: a name that is not known.
    """
    match = BODY.match(cfg.MODEL.CONV_BODY)
    name = match["name"].lower() if match else ""
    if name not in ARCHITECTURES or (match and match["single"]):
        known = ", ".join(f"FPN.add_fpn_{n.replace('resnet', 'ResNet')}_conv5_body" for n in ARCHITECTURES)
        raise UsageError(f"MODEL.CONV_BODY: {cfg.MODEL.CONV_BODY!r} is not available; known: {known}")
    r = cfg.RESNETS
    arguments: dict[str, Any] = {}
    if "groups" not in ARCHITECTURES[name]:
        arguments |= {
            "groups": r.NUM_GROUPS,
            "width_per_group": r.WIDTH_PER_GROUP,
            "stride_in_1x1": r.STRIDE_1X1,
        }
    elif r.NUM_GROUPS not in (1, ARCHITECTURES[name]["groups"]):
        raise UsageError(
            f"RESNETS.NUM_GROUPS: {r.NUM_GROUPS}, but {name} has {ARCHITECTURES[name]['groups']}; leave it out, or use "
            "FPN.add_fpn_ResNet101_conv5_body"
        )
    arguments |= ARCHITECTURES[name]
    if r.WIDTH:
        arguments["width"] = r.WIDTH
    if r.STAGE_BLOCKS:
        arguments["stage_blocks"] = r.STAGE_BLOCKS
    if r.BLOCK:
        arguments["block"] = r.BLOCK
    if arguments["block"] == "basic" and arguments.get("groups", 1) > 1:
        raise UsageError(
            f"RESNETS.NUM_GROUPS: {r.NUM_GROUPS} needs bottleneck blocks; {name} has basic ones, set it to 1"
        )
    return arguments


def backbone_norm(cfg: Config) -> str:
    """The backbone's normalisation: RESNETS.NORM, or what Detectron's function names imply."""
    functions = (cfg.RESNETS.TRANS_FUNC, cfg.RESNETS.STEM_FUNC, cfg.RESNETS.SHORTCUT_FUNC)
    return cfg.RESNETS.NORM or ("group" if any("_gn_" in f for f in functions) else "affine")


def pyramid_norm(cfg: Config) -> str:
    """The pyramid's normalisation: FPN.NORM, or what FPN.USE_GN says."""
    return cfg.FPN.NORM or ("group" if cfg.FPN.USE_GN else "none")


def build_backbone(cfg: Config) -> ResNet:
    """The network up to C5."""
    return ResNet(
        **architecture(cfg),
        norm=backbone_norm(cfg),
        norm_groups=cfg.GROUP_NORM.NUM_GROUPS,
        norm_eps=cfg.GROUP_NORM.EPSILON if backbone_norm(cfg) == "group" else 1e-5,
        freeze_at=5 if cfg.TRAIN.FREEZE_CONV_BODY else cfg.TRAIN.FREEZE_AT,
        res5_dilation=cfg.RESNETS.RES5_DILATION,
    )


def build_pyramid(cfg: Config, channels: dict[int, int]) -> FPN:
    """The feature pyramid on a backbone with these channels per stage."""
    low, high = pyramid_levels(cfg)
    fpn = FPN(
        {stage: c for stage, c in channels.items() if stage >= low},
        dim=cfg.FPN.DIM,
        min_level=low,
        max_level=high,
        extra_convs=cfg.FPN.EXTRA_CONV_LEVELS,
        norm=pyramid_norm(cfg),
        norm_groups=cfg.GROUP_NORM.NUM_GROUPS,
        norm_eps=cfg.GROUP_NORM.EPSILON,
        zero_init_lateral=cfg.FPN.ZERO_INIT_LATERAL,
        extra_relu=cfg.FPN.EXTRA_RELU,
    )
    if cfg.TRAIN.FREEZE_CONV_BODY:  # Detectron stops the gradient behind its pyramid, not before it
        fpn.requires_grad_(False)
    return fpn


def build_balance(cfg: Config, fpn: FPN) -> BalancedFeaturePyramid | None:
    """The balanced pyramid, where it is switched on."""
    p = cfg.LIBRA.PYRAMID
    if not p.ON:
        return None
    return BalancedFeaturePyramid(
        fpn.out_channels,
        levels=fpn.levels,
        refine_level=p.REFINE_LEVEL,
        refine=p.REFINE,
        init=p.INIT,
        attention=p.ATTENTION,
    )


def build_trunk(cfg: Config) -> dict[str, nn.Module | None]:
    """What both detectors share: keyword arguments ``preprocess``, ``backbone``, ``neck`` and ``balance``."""
    backbone = build_backbone(cfg)
    fpn = build_pyramid(cfg, backbone.out_channels)
    preprocess = Preprocess(
        cfg.PIXEL_MEANS.ravel().tolist(),
        cfg.PIXEL_STDS.ravel().tolist(),
        order=cfg.PIXEL_ORDER,
        channels_last=cfg.CHANNELS_LAST,
    )
    return {"preprocess": preprocess, "backbone": backbone, "neck": fpn, "balance": build_balance(cfg, fpn)}
