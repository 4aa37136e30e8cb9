# SPDX-License-Identifier: Apache-2.0
"""torchvision: ImageNet files, COCO's 91 outputs, the epsilon that the published detectors lack, older names."""

import math

import pytest
import torch

from detectron_libra.config import Config, infer, with_values
from detectron_libra.modeling.backbones.resnet import ResNet
from detectron_libra.weights.foreign import from_state_dict
from detectron_libra.weights.torchvision import COCO_UNUSED, kept_outputs
from tests.weights.frameworks import TORCHVISION
from tests.weights.their_networks import random_state

NETWORKS = {
    "resnet18": {"stage_blocks": (2, 2, 2, 2), "block": "basic"},
    "resnet34": {"stage_blocks": (3, 4, 6, 3), "block": "basic"},
    "resnet50": {"stage_blocks": (3, 4, 6, 3)},
    "resnet101": {"stage_blocks": (3, 4, 23, 3)},
    "resnet152": {"stage_blocks": (3, 8, 36, 3)},
    "resnext50_32x4d": {"stage_blocks": (3, 4, 6, 3), "groups": 32, "width_per_group": 4},
    "resnext101_32x8d": {"stage_blocks": (3, 4, 23, 3), "groups": 32, "width_per_group": 8},
    "resnext101_64x4d": {"stage_blocks": (3, 4, 23, 3), "groups": 64, "width_per_group": 4},
    "wide_resnet50_2": {"stage_blocks": (3, 4, 6, 3), "width_per_group": 128},
}


def imagenet(blocks, *, basic=False, groups=1, width=64):
    """torchvision's state dict of a ResNet, as its models/resnet.py builds it, without memory."""
    shapes = {"conv1": (64, 3, 7, 7), "bn1": (64,), "fc": (1000, 512 if basic else 2048)}
    inputs, expansion = 64, 1 if basic else 4
    for layer, count in enumerate(blocks, 1):
        planes = 64 * 2 ** (layer - 1)
        inner = planes if basic else planes * width // 64 * groups
        for block in range(count):
            name, outputs = f"layer{layer}.{block}", planes * expansion
            if basic:
                convs = [(planes, inputs, 3, 3), (planes, planes, 3, 3)]
            else:
                convs = [(inner, inputs, 1, 1), (inner, inner // groups, 3, 3), (outputs, inner, 1, 1)]
            for i, shape in enumerate(convs, 1):
                shapes |= {f"{name}.conv{i}": shape, f"{name}.bn{i}": shape[:1]}
            if block == 0 and inputs != outputs:
                shapes |= {
                    f"{name}.downsample.0": (outputs, inputs, 1, 1),
                    f"{name}.downsample.1": (outputs,),
                }
            inputs = outputs
    state = {}
    for name, shape in shapes.items():
        state[f"{name}.weight"] = torch.ones(()).expand(shape)
        if len(shape) == 1:
            values = {"bias": 0.25, "running_mean": 0.5, "running_var": 4.0}
            state |= {f"{name}.{kind}": torch.full(shape, value) for kind, value in values.items()}
            state[f"{name}.num_batches_tracked"] = torch.tensor(9)
    return state | {"fc.bias": torch.zeros(1000)}


@pytest.mark.parametrize("name", NETWORKS)
def test_imagenet_files_fill_the_whole_backbone(name):
    how = NETWORKS[name]
    groups, width = how.get("groups", 1), how.get("width_per_group", 64)
    raw = imagenet(how["stage_blocks"], basic="block" in how, groups=groups, width=width)
    weights = from_state_dict(raw, source="a.pth")
    with torch.device("meta"):
        wanted = {f"backbone.{n}": t.shape for n, t in ResNet(**how).state_dict().items()}
    assert {n: t.shape for n, t in weights.state.items()} == wanted
    assert weights.backbone_only and set(weights.preserved) == {"fc.weight", "fc.bias"}
    cfg = with_values(infer(Config()), dict(weights.settings))
    assert cfg.PIXEL_ORDER == "RGB" and cfg.PIXEL_MEANS.ravel().tolist() == [123.675, 116.28, 103.53]
    assert (groups, width) == (cfg.RESNETS.NUM_GROUPS, cfg.RESNETS.WIDTH_PER_GROUP)
    assert ("block" in how) == cfg.RESNETS.STRIDE_1X1  # of no importance to basic blocks


def test_normalisations_become_scale_and_shift_with_their_epsilon():
    state = from_state_dict(imagenet((1, 1, 1, 1)), source="a.pth").state
    scale = 1 / math.sqrt(4 + 1e-5)
    assert state["backbone.stem.norm.weight"][0].item() == pytest.approx(scale, rel=1e-7)
    assert state["backbone.stem.norm.bias"][0].item() == pytest.approx(0.25 - 0.5 * scale, rel=1e-6)


def test_unused_numbers_of_coco_are_left_out():
    """COCO's categories have the numbers 1 to 90, of which 80 are used."""
    assert len(COCO_UNUSED) == 11 and len(kept_outputs(91, dense=False)) == 81
    assert kept_outputs(91, dense=True)[:12] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13]
    assert kept_outputs(5, dense=False) == [0, 1, 2, 3, 4] and kept_outputs(5, dense=True) == [1, 2, 3, 4]


def coco(dense):
    """A detector with 91 outputs, whose numbers tell what they are for."""
    state = random_state(TORCHVISION, dense=dense)
    if dense:
        name, rows = "head.classification_head.cls_logits", torch.arange(9 * 91.0)
    else:
        name, rows = "roi_heads.box_predictor.cls_score", torch.arange(91.0)
        state["roi_heads.box_predictor.bbox_pred.bias"] = torch.arange(4 * 91.0)
        box = state["roi_heads.box_predictor.bbox_pred.weight"]
        state["roi_heads.box_predictor.bbox_pred.weight"] = torch.zeros(4 * 91, *box.shape[1:])
    weight = state[f"{name}.weight"]
    state |= {f"{name}.weight": torch.zeros(len(rows), *weight.shape[1:]), f"{name}.bias": rows}
    return state


def test_91_outputs_of_a_retinanet_become_80_classes_of_each_anchor_in_our_order():
    weights = from_state_dict(coco(dense=True), source="a.pth")
    rows = weights.state["head.cls_pred.bias"].view(9, 80)
    kept = torch.tensor(kept_outputs(91, dense=True))
    for ours in range(9):
        size, ratio = divmod(ours, 3)
        assert rows[ours].tolist() == (91 * (3 * ratio + size) + kept).tolist()
    assert weights.preserved["head.classification_head.cls_logits.bias"].shape == (9 * 91,)


def test_91_outputs_of_a_faster_rcnn_become_80_classes_and_the_background():
    weights = from_state_dict(coco(dense=False), source="a.pth")
    kept = [0, *kept_outputs(91, dense=True)]
    assert weights.state["regions.predictor.cls_score.bias"].tolist() == kept
    assert weights.state["regions.predictor.bbox_pred.bias"].view(-1, 4)[:, 0].tolist() == [
        4 * k for k in kept
    ]
    assert weights.preserved["roi_heads.box_predictor.bbox_pred.bias"].shape == (4 * 91,)


def test_trained_normalisations_have_an_epsilon_and_frozen_ones_none(caplog):
    """torchvision's overwrite_eps: the published detectors were trained without it."""
    state = random_state(TORCHVISION, dense=True)
    name = "backbone.body.bn1"
    state[f"{name}.running_var"][:] = 1e-4
    weight = state[f"{name}.weight"]
    found = from_state_dict(state, source="a.pth").state["backbone.stem.norm.weight"]
    torch.testing.assert_close(found, weight / 1e-2)
    assert "without an epsilon" in caplog.text
    state[f"{name}.num_batches_tracked"] = torch.tensor(1)
    found = from_state_dict(state, source="a.pth").state["backbone.stem.norm.weight"]
    torch.testing.assert_close(found, weight / math.sqrt(1.1e-4))


def test_names_before_version_0_13():
    """Convolutions had no list of their own, and towers counted their activations."""
    for dense in (True, False):
        new = random_state(TORCHVISION, dense=dense)
        old = {}
        for name, tensor in new.items():
            for n in range(4):
                name = name.replace(f"_head.conv.{n}.0.", f"_head.conv.{2 * n}#")
            name = name.replace("#", ".").replace("rpn.head.conv.0.0", "rpn.head.conv")
            if "_blocks." in name and "extra" not in name:
                name = name.replace(".0.weight", ".weight").replace(".0.bias", ".bias")
            old[name] = tensor
        assert set(old) != set(new)
        found, wanted = (from_state_dict(raw, source="a.pth").state for raw in (old, new))
        assert set(found) == set(wanted) and all(torch.equal(found[n], wanted[n]) for n in wanted)


def test_normalised_towers_of_the_second_version():
    state = random_state(TORCHVISION, dense=True)
    for tower in ("classification", "regression"):
        for n in range(2):
            name = f"head.{tower}_head.conv.{n}"
            del state[f"{name}.0.bias"]
            state |= {f"{name}.1.weight": torch.ones(16), f"{name}.1.bias": torch.zeros(16)}
    weights = from_state_dict(state, source="a.pth")
    assert weights.settings["RETINANET.HEAD_NORM"] == "group" and weights.settings["RETINANET.NUM_CONVS"] == 2
    towers = {n for n in weights.state if n.startswith("head.cls_tower.")}
    assert towers == {
        f"head.cls_tower.{n}" for n in ("0.weight", "1.weight", "1.bias", "3.weight", "4.weight", "4.bias")
    }
