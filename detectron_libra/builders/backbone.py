# SPDX-License-Identifier: Apache-2.0
"""Configuration to backbone and pyramid: Detectron's function names, and what the other keys change."""

import re
from typing import Any, NamedTuple

from torch import nn

from detectron_libra.builders.rules import norm_groups
from detectron_libra.config.checks import pyramid_levels
from detectron_libra.config.schema import Config
from detectron_libra.errors import UsageError
from detectron_libra.modeling.backbones.blocks import BlockStyle
from detectron_libra.modeling.backbones.resnet import (
    ARCHITECTURES,
    BLOCKS,
    ResNet,
    resnet_stage,
    stage_channels,
)
from detectron_libra.modeling.heads.res5 import Res5Head
from detectron_libra.modeling.necks.balanced_pyramid import BalancedFeaturePyramid
from detectron_libra.modeling.necks.fpn import FPN
from detectron_libra.modeling.preprocess import Preprocess

#: Cells per axis that stage 5 leaves of a region; Detectron pools over as many.
HEAD_CELLS = 7
#: FPN.add_fpn_ResNet50_conv5_body, ResNet.add_ResNet50_conv4_body and _conv5_body, or a name of ARCHITECTURES in
#: ResNet50's place. Detectron's variants with P2only, a pyramid of one level, are not there.
BODY = re.compile(r"^(FPN\.add_(?P<pyramid>fpn)|ResNet\.add)_(?P<name>\w+?)_conv(?P<stage>[45])_body$")


class Body(NamedTuple):
    """What MODEL.CONV_BODY names: an architecture, its last stage, and whether a pyramid stands on it."""

    name: str
    stage: int
    pyramid: bool


class Features(NamedTuple):
    """What heads are built on: channels, and the level and stride in pixels of every map, finest first."""

    channels: int
    levels: tuple[int, ...]
    strides: tuple[int, ...]


def body(cfg: Config) -> Body:
    """What MODEL.CONV_BODY names.

    Raises:
        UsageError: a name that is not known, or one that does not go with FPN.FPN_ON.
    """
    match = BODY.match(cfg.MODEL.CONV_BODY)
    name = match["name"].lower() if match else ""
    if not match or name not in ARCHITECTURES or (match["pyramid"] and match["stage"] != "5"):
        names = ", ".join(n.replace("resnet", "ResNet") for n in ARCHITECTURES)
        raise UsageError(
            f"MODEL.CONV_BODY: {cfg.MODEL.CONV_BODY!r} is not available; known: FPN.add_fpn_<name>_conv5_body, "
            f"ResNet.add_<name>_conv4_body and ResNet.add_<name>_conv5_body, where <name> is one of {names}"
        )
    pyramid = bool(match["pyramid"])
    if pyramid != cfg.FPN.FPN_ON:
        raise UsageError(
            f"FPN.FPN_ON: {cfg.FPN.FPN_ON} does not go with MODEL.CONV_BODY {cfg.MODEL.CONV_BODY}; "
            f"set it to {pyramid}"
        )
    return Body(name, int(match["stage"]), pyramid)


def architecture(cfg: Config) -> dict[str, Any]:
    """Arguments of ``ResNet`` that MODEL.CONV_BODY and the keys of RESNETS say.

    Raises:
        UsageError: a name that is not known.
    """
    name = body(cfg).name
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


def norm_arguments(cfg: Config) -> dict[str, Any]:
    """Arguments of ``ResNet`` about its normalisation."""
    norm = backbone_norm(cfg)
    return {
        "norm": norm,
        "norm_groups": norm_groups(cfg),
        "norm_eps": cfg.GROUP_NORM.EPSILON if norm == "group" else 1e-5,
    }


def build_backbone(cfg: Config) -> ResNet:
    """The network up to C5, or to C4 where stage 5 is the head."""
    kind, norm = body(cfg), backbone_norm(cfg)
    if cfg.TRAIN.CHECKPOINT_ACTIVATIONS and norm == "batch":
        raise UsageError(
            "TRAIN.CHECKPOINT_ACTIVATIONS: the statistics of RESNETS.NORM batch would count each batch twice; set it "
            "to False, or RESNETS.NORM to group"
        )
    return ResNet(
        **architecture(cfg),
        **norm_arguments(cfg),
        freeze_at=5 if cfg.TRAIN.FREEZE_CONV_BODY else cfg.TRAIN.FREEZE_AT,
        res5_dilation=cfg.RESNETS.RES5_DILATION,
        recompute=cfg.TRAIN.CHECKPOINT_ACTIVATIONS,
        out_stages=(2, 3, 4, 5) if kind.pyramid else (kind.stage,),
    )


def build_res5_head(cfg: Config, resolution: int) -> Res5Head:
    """Stage 5 as the head on regions of ``resolution`` cells, which it brings down to 7 as the backbone would be."""
    if body(cfg).stage != 4:
        raise UsageError(
            f"FAST_RCNN.ROI_BOX_HEAD: {cfg.FAST_RCNN.ROI_BOX_HEAD} needs a backbone that ends with stage 4; set "
            f"MODEL.CONV_BODY {cfg.MODEL.CONV_BODY.replace('FPN.add_fpn_', 'ResNet.add_').replace('conv5', 'conv4')}"
        )
    if resolution < HEAD_CELLS:
        raise UsageError(
            f"FAST_RCNN.ROI_XFORM_RESOLUTION: {resolution} is too small for "
            f"{cfg.FAST_RCNN.ROI_BOX_HEAD}; set it to {HEAD_CELLS} or {2 * HEAD_CELLS}"
        )
    a = {"width": 64, "groups": 1, "width_per_group": 64, "stride_in_1x1": True} | architecture(cfg)
    n = norm_arguments(cfg)
    block = BLOCKS[a["block"]]
    style = BlockStyle(n["norm"], n["norm_groups"], n["norm_eps"], a["groups"], a["stride_in_1x1"])
    res5 = resnet_stage(
        5,
        a["stage_blocks"][-1],
        block,
        style,
        width=a["width"],
        width_per_group=a["width_per_group"],
        stride=resolution // HEAD_CELLS,
    )
    return Res5Head(
        res5=res5, out_dim=stage_channels(5, a["width"], block), from_scratch=n["norm"] != "affine"
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
        norm_groups=norm_groups(cfg),
        norm_eps=cfg.GROUP_NORM.EPSILON,
        zero_init_lateral=cfg.FPN.ZERO_INIT_LATERAL,
        extra_relu=cfg.FPN.EXTRA_RELU,
        extra_from_output=cfg.FPN.EXTRA_SOURCE == "P5",
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


def build_trunk(cfg: Config) -> tuple[dict[str, nn.Module | None], Features]:
    """What all detectors share.

    Returns:
        Keyword arguments ``preprocess``, ``backbone``, ``neck`` and ``balance``, and what heads find there.
    """
    backbone = build_backbone(cfg)
    fpn = build_pyramid(cfg, backbone.out_channels) if cfg.FPN.FPN_ON else None
    if fpn is None:
        ((stage, channels),) = backbone.out_channels.items()
        features = Features(channels, (stage,), (backbone.strides[stage],))
    else:
        features = Features(fpn.out_channels, tuple(fpn.levels), tuple(2**level for level in fpn.levels))
    preprocess = Preprocess(
        cfg.PIXEL_MEANS.ravel().tolist(),
        cfg.PIXEL_STDS.ravel().tolist(),
        order=cfg.PIXEL_ORDER,
        channels_last=cfg.CHANNELS_LAST,
    )
    balance = None if fpn is None else build_balance(cfg, fpn)
    return {"preprocess": preprocess, "backbone": backbone, "neck": fpn, "balance": balance}, features
