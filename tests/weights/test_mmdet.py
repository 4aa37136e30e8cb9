# SPDX-License-Identifier: Apache-2.0
"""mmdetection: whole state dicts onto whole models, and what a checkpoint tells beside its tensors."""

import json

import pytest
import torch

from detectron_libra.builders.detector import build_detector
from detectron_libra.config import Config, infer, with_values
from detectron_libra.errors import InputError
from detectron_libra.weights.architecture import num_classes
from detectron_libra.weights.foreign import from_state_dict
from detectron_libra.weights.mmdet import rules
from detectron_libra.weights.translate import our_name
from tests.modeling.mmdet_parameters import KEYS, shapes
from tests.weights.frameworks import CLASSES, MMDET
from tests.weights.their_networks import random_state

CONFIGS = [name for name in json.loads(KEYS.read_text()) if name != "reference"]


def blank(name):
    """A state dict of these shapes that takes no memory."""
    return {
        n: torch.full((), 0.5 if n.endswith("running_mean") else 1.0).expand(shape)
        for n, shape in shapes(name).items()
    }


@pytest.mark.parametrize("name", CONFIGS)
def test_every_tensor_is_used_and_every_parameter_filled(name):
    tensors = blank(name)
    weights = from_state_dict({"state_dict": tensors}, source=name)
    cfg = with_values(infer(Config()), dict(weights.settings))
    with torch.device("meta"):
        model = build_detector(cfg, num_classes(weights.state))
    wanted = {n: tuple(t.shape) for n, t in model.state_dict().items()}
    assert {n: tuple(t.shape) for n, t in weights.state.items()} == wanted
    assert not weights.preserved
    layers = {n.rpartition(".")[0] for n in tensors}
    finest = 3 if "retinanet" in name else 2
    assert len({our_name(layer, rules(finest)) for layer in layers}) == len(layers)


def test_settings_tell_what_shapes_do_not():
    settings = from_state_dict({"state_dict": blank("libra_retinanet_r50")}, source="a.pth").settings
    assert settings["MODEL.BOX_GEOMETRY"] == "continuous" and settings["PIXEL_ORDER"] == "RGB"
    assert settings["RESNETS.STRIDE_1X1"] is False and settings["FPN.EXTRA_RELU"] is False
    assert settings["LIBRA.PYRAMID.REFINE"] == "non_local" and settings["FPN.EXTRA_SOURCE"] == "C5"
    settings = from_state_dict({"state_dict": blank("libra_faster_rcnn_x101_64x4d")}, source="a.pth").settings
    assert settings["RESNETS.NUM_GROUPS"] == 64 and settings["RESNETS.WIDTH_PER_GROUP"] == 4
    assert settings["MODEL.BBOX_REG_WEIGHTS"] == (10.0, 10.0, 5.0, 5.0)


TEXT = """model = dict(backbone=dict(type='ResNet', depth=50, style='{style}'),
  rpn_head=dict(bbox_coder=dict(target_stds=[1.0, 1.0, 1.0, 1.0])),
  roi_head=dict(bbox_head=dict(bbox_coder=dict(target_stds=[0.05, 0.05, 0.1, 0.1]))))
img_norm_cfg = dict(mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], {rgb}=False)
"""


@pytest.mark.parametrize(("key", "rgb"), [("config", "to_rgb"), ("cfg", "bgr_to_rgb")])
def test_a_configuration_in_the_file_is_believed(key, rgb):
    """Version 2 calls it config, version 3 cfg."""
    meta = {key: TEXT.format(style="caffe", rgb=rgb)}
    settings = from_state_dict(
        {"state_dict": random_state(MMDET, dense=False), "meta": meta}, source="a.pth"
    ).settings
    assert settings["RESNETS.STRIDE_1X1"] is True
    assert settings["PIXEL_ORDER"] == "BGR" and settings["PIXEL_STDS"] == [1.0, 1.0, 1.0]
    assert settings["PIXEL_MEANS"] == [103.53, 116.28, 123.675]
    assert settings["MODEL.BBOX_REG_WEIGHTS"] == (20.0, 20.0, 10.0, 10.0)


def test_a_backbone_of_caffe2_is_known_by_its_empty_statistics():
    tensors = random_state(MMDET, dense=True)
    for name, tensor in tensors.items():
        if name.endswith("running_mean"):
            tensor.zero_()
    settings = from_state_dict({"state_dict": tensors}, source="a.pth").settings
    assert settings["RESNETS.STRIDE_1X1"] is True and settings["PIXEL_ORDER"] == "BGR"


@pytest.mark.parametrize(
    "meta", [{"CLASSES": ("a", "b", "c")}, {"dataset_meta": {"classes": ["a", "b", "c"]}}]
)
def test_class_names_and_iteration_come_along(meta):
    raw = {"state_dict": random_state(MMDET, dense=True), "meta": meta | {"iter": 12, "epoch": 1}}
    metadata = from_state_dict(raw, source="a.pth").metadata
    assert json.loads(metadata["class_names"]) == ["a", "b", "c"] and metadata["iteration"] == "12"
    assert len(json.loads(metadata["class_names"])) == CLASSES


def test_names_of_another_number_of_classes_are_left_out(caplog):
    raw = {"state_dict": random_state(MMDET, dense=True), "meta": {"CLASSES": ("a", "b")}}
    assert "class_names" not in from_state_dict(raw, source="a.pth").metadata
    assert "names 2 classes" in caplog.text


def test_one_box_for_all_classes():
    tensors = random_state(MMDET, dense=False)
    for kind in ("weight", "bias"):
        name = f"roi_head.bbox_head.fc_reg.{kind}"
        tensors[name] = tensors[name][:4]
    weights = from_state_dict({"state_dict": tensors}, source="a.pth")
    assert weights.settings["MODEL.CLS_AGNOSTIC_BBOX_REG"] is True
    boxes = weights.state["regions.predictor.bbox_pred.bias"]
    assert boxes.tolist() == [0] * 4 + tensors["roi_head.bbox_head.fc_reg.bias"].tolist()


def test_a_mask_head_is_preserved_and_the_box_branch_used():
    tensors = random_state(MMDET, dense=False) | {"roi_head.mask_head.conv_logits.weight": torch.ones(2, 3)}
    weights = from_state_dict({"state_dict": tensors}, source="a.pth")
    assert list(weights.preserved) == ["roi_head.mask_head.conv_logits.weight"]
    assert weights.preserved["roi_head.mask_head.conv_logits.weight"].shape == (2, 3)


@pytest.mark.parametrize(
    ("extra", "word"),
    [
        ("backbone.layer2.0.conv2_offset.weight", "conv2_offset"),
        ("neck.lateral_convs.0.bn.weight", "lateral_convs.0.bn"),
        ("roi_head.bbox_head.shared_convs.0.conv.weight", "shared_convs"),
        ("bbox_head.fc_cls.weight", "mmdetection 1"),
    ],
)
def test_other_networks_are_refused_by_the_tensor_that_shows_it(extra, word):
    """A deformable, a normalised or a larger head read as a plain one would give wrong boxes without a word."""
    tensors = random_state(MMDET, dense=False) | {extra: torch.ones(2)}
    with pytest.raises(InputError, match=word):
        from_state_dict({"state_dict": tensors}, source="a.pth")


@pytest.mark.parametrize("missing", ["rpn_head.rpn_cls.weight", "roi_head.bbox_head.fc_cls.weight"])
def test_halves_of_a_detector_are_no_detector(missing):
    """Without the RPN it is a Fast R-CNN, without a predictor nothing."""
    tensors = random_state(MMDET, dense=False)
    del tensors[missing]
    if "rpn" in missing:
        assert from_state_dict({"state_dict": tensors}, source="a").settings["MODEL.FASTER_RCNN"] is False
    else:
        with pytest.raises(InputError, match="cls_score"):
            from_state_dict({"state_dict": tensors}, source="a.pth")
