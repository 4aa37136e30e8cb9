# SPDX-License-Identifier: Apache-2.0
"""Configuration to backbone and pyramid: Detectron's names, and keys that win over them."""

import pytest
import torch

from detectron_libra.builders.backbone import (
    architecture,
    backbone_norm,
    build_backbone,
    build_balance,
    build_pyramid,
    build_trunk,
    pyramid_norm,
)
from detectron_libra.errors import UsageError
from detectron_libra.modeling.backbones.blocks import BasicBlock, BottleneckBlock
from detectron_libra.modeling.norm import FrozenAffine
from tests.builders.small import config


def body(name):
    return f"FPN.add_fpn_{name}_conv5_body"


@pytest.mark.parametrize(
    ("name", "blocks"),
    [("ResNet50", (3, 4, 6, 3)), ("ResNet101", (3, 4, 23, 3)), ("ResNet152", (3, 8, 36, 3))],
)
def test_detectrons_names_of_bodies(name, blocks):
    found = architecture(
        config("retinanet", MODEL__CONV_BODY=body(name), RESNETS__STAGE_BLOCKS="()", RESNETS__WIDTH=64)
    )
    assert found["stage_blocks"] == blocks and found["block"] == "bottleneck" and found["stride_in_1x1"]


def test_resnext_is_a_resnet_with_groups_as_in_detectron():
    cfg = config(
        "retinanet",
        MODEL__CONV_BODY=body("ResNet101"),
        RESNETS__STAGE_BLOCKS="()",
        RESNETS__WIDTH=64,
        RESNETS__NUM_GROUPS=32,
        RESNETS__WIDTH_PER_GROUP=8,
        RESNETS__STRIDE_1X1=False,
    )
    found = architecture(cfg)
    assert (found["groups"], found["width_per_group"], found["stride_in_1x1"]) == (32, 8, False)


def test_the_tiny_body_keeps_its_width_unless_another_is_asked_for():
    tiny = {"MODEL__CONV_BODY": body("resnet36_tiny"), "RESNETS__STAGE_BLOCKS": "()"}
    assert architecture(config("retinanet", **tiny, RESNETS__WIDTH=0))["width"] == 32
    assert architecture(config("retinanet", **tiny, RESNETS__WIDTH=16))["width"] == 16


@pytest.mark.parametrize("name", ["", "ResNet50.add_ResNet50_conv4_body", body("ResNet51"), body("VGG16")])
def test_an_unknown_body_is_named_with_those_there_are(name):
    with pytest.raises(UsageError, match=r"MODEL\.CONV_BODY.*add_fpn_<name>_conv5_body.*ResNet50"):
        architecture(config("retinanet", MODEL__CONV_BODY=name))


def test_a_pyramid_of_p2_alone_is_refused():
    with pytest.raises(UsageError, match=r"MODEL\.CONV_BODY"):
        architecture(config("retinanet", MODEL__CONV_BODY="FPN.add_fpn_ResNet50_conv5_P2only_body"))


def test_norms_follow_detectrons_functions_and_our_key_wins():
    assert backbone_norm(config("retinanet")) == "affine"
    assert backbone_norm(config("retinanet", RESNETS__STEM_FUNC="basic_gn_stem")) == "group"
    both = config("retinanet", RESNETS__STEM_FUNC="basic_gn_stem", RESNETS__NORM="batch")
    assert backbone_norm(both) == "batch"
    assert pyramid_norm(config("retinanet")) == "none"
    assert pyramid_norm(config("retinanet", FPN__USE_GN=True)) == "group"
    assert pyramid_norm(config("retinanet", FPN__USE_GN=True, FPN__NORM="batch")) == "batch"


def trained_stages(**changes):
    net = build_backbone(config("retinanet", **changes))
    return {name.split(".")[0] for name, p in net.named_parameters() if p.requires_grad}


def test_freeze_at_and_the_frozen_body():
    assert trained_stages() == {"res3", "res4", "res5"}
    assert trained_stages(TRAIN__FREEZE_AT=0) == {"stem", "res2", "res3", "res4", "res5"}
    assert trained_stages(TRAIN__FREEZE_AT=4) == {"res5"}
    assert trained_stages(TRAIN__FREEZE_CONV_BODY=True) == set()


def test_block_kind_and_norm_reach_the_network():
    net = build_backbone(config("retinanet"))
    assert isinstance(net.res2[0], BasicBlock) and isinstance(net.res2[0].norm1, FrozenAffine)
    net = build_backbone(config("retinanet", RESNETS__BLOCK="bottleneck", RESNETS__NORM="batch"))
    assert isinstance(net.res2[0], BottleneckBlock) and isinstance(net.res2[0].norm1, torch.nn.BatchNorm2d)


@pytest.mark.parametrize(
    ("kind", "levels"), [("retinanet", (3, 4, 5, 6, 7)), ("faster_rcnn", (2, 3, 4, 5, 6))]
)
def test_levels_of_the_pyramid_and_of_its_balance(kind, levels):
    cfg = config(kind, LIBRA__PYRAMID__ON=True)
    fpn = build_pyramid(cfg, build_backbone(cfg).out_channels)
    assert fpn.levels == levels and fpn.out_channels == 16
    assert build_balance(cfg, fpn).refine_index == levels.index(4)


def test_extra_levels_are_convolutions_for_retinanet_and_pooled_for_an_rcnn():
    for kind, extra in [("retinanet", ["6", "7"]), ("faster_rcnn", [])]:
        cfg = config(kind)
        assert list(build_pyramid(cfg, build_backbone(cfg).out_channels).extra) == extra


def test_balance_is_off_unless_switched_on_and_its_keys_arrive():
    cfg = config("faster_rcnn")
    assert build_trunk(cfg)[0]["balance"] is None
    keys = {"LIBRA__PYRAMID__ON": True, "LIBRA__PYRAMID__REFINE_LEVEL": 3, "LIBRA__PYRAMID__INIT": "xavier"}
    balance = build_trunk(config("faster_rcnn", **keys))[0]["balance"]
    assert balance.refine_index == 1 and balance.refine.conv_out.weight.any()
    zero = build_trunk(config("faster_rcnn", LIBRA__PYRAMID__ON=True))[0]["balance"]
    assert not zero.refine.conv_out.weight.any()
    conv = build_trunk(config("faster_rcnn", LIBRA__PYRAMID__ON=True, LIBRA__PYRAMID__REFINE="conv"))[0][
        "balance"
    ]
    assert conv.refine.conv.weight.shape == (16, 16, 3, 3)


def test_pixel_keys_reach_the_preprocessing():
    cfg = config(
        "retinanet",
        PIXEL_ORDER="RGB",
        PIXEL_MEANS="[1, 2, 3]",
        PIXEL_STDS="[4, 5, 6]",
        CHANNELS_LAST=False,
    )
    preprocess = build_trunk(cfg)[0]["preprocess"]
    assert preprocess.means.flatten().tolist() == [1, 2, 3] and preprocess.stds.flatten().tolist() == [
        4,
        5,
        6,
    ]
    assert not preprocess.reverse and preprocess.memory_format == torch.contiguous_format
    assert build_trunk(config("retinanet"))[0]["preprocess"].reverse
