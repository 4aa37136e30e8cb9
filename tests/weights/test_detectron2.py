# SPDX-License-Identifier: Apache-2.0
"""detectron2: Caffe2's ImageNet files in its wrapping, its own ones, and what older files say of their pixels."""

import pickle

import numpy as np
import pytest
import torch

from detectron_libra.errors import InputError
from detectron_libra.modeling.backbones.resnet import ResNet
from detectron_libra.weights.foreign import from_state_dict
from detectron_libra.weights.unpickle import load_pickle
from tests.weights.frameworks import DETECTRON2
from tests.weights.test_torchvision import imagenet
from tests.weights.their_networks import random_state

BRANCHES = {"conv1": "branch2a", "conv2": "branch2b", "conv3": "branch2c", "shortcut": "branch1"}


def caffe2(**how):
    """detectron2's R-50.pkl: Caffe2's names of a ResNet, NumPy arrays, a class layer, and the stem's bias."""
    blobs = {"conv1_b": np.zeros(64, np.float32), "fc1000_w": np.zeros((10, 4), np.float32)}
    with torch.device("meta"):
        shapes = {n: tuple(t.shape) for n, t in ResNet(**how).state_dict().items()}
    for number, (name, shape) in enumerate(shapes.items()):
        stage, _, rest = name.partition(".")
        kind = "w" if "norm" not in name else "bn_s" if name.endswith("weight") else "bn_b"
        if stage == "stem":
            blob = "conv1_w" if kind == "w" else f"res_conv1_{kind}"
        else:
            block, layer, _ = rest.split(".")
            branch = BRANCHES[layer.replace("_norm", "").replace("norm", "conv")]
            blob = f"{stage}_{block}_{branch}_{kind}"
        blobs[blob] = np.full(shape, number, np.float32)
    return {"model": blobs, "__author__": "Caffe2", "matching_heuristics": True}, shapes


def test_caffe2_names_in_a_pickle_of_detectron2(tmp_path):
    raw, shapes = caffe2(stage_blocks=(1, 2, 1, 1))
    (tmp_path / "R-50.pkl").write_bytes(pickle.dumps(raw, protocol=2))
    weights = from_state_dict(load_pickle(tmp_path / "R-50.pkl"), source="R-50.pkl")
    assert weights.kind == "detectron2" and weights.backbone_only
    assert {n.removeprefix("backbone."): tuple(t.shape) for n, t in weights.state.items()} == shapes
    for number, name in enumerate(shapes):
        assert (weights.state[f"backbone.{name}"] == number).all(), name
    assert set(weights.preserved) == {"conv1_b", "fc1000_w"}


def test_caffe2_files_want_bgr_and_strides_in_1x1_but_for_resnext():
    settings = from_state_dict(caffe2()[0], source="R-50.pkl").settings
    assert settings["PIXEL_ORDER"] == "BGR" and settings["PIXEL_STDS"] == [1.0, 1.0, 1.0]
    assert settings["PIXEL_MEANS"] == [103.53, 116.28, 123.675] and settings["RESNETS.STRIDE_1X1"] is True
    settings = from_state_dict(caffe2(groups=32, width_per_group=8)[0], source="X.pkl").settings
    assert settings["PIXEL_ORDER"] == "BGR" and settings["PIXEL_STDS"] == [57.375, 57.12, 58.395]
    assert settings["RESNETS.STRIDE_1X1"] is False and settings["RESNETS.NUM_GROUPS"] == 32


def test_torchvisions_weights_in_a_pickle_of_detectron2():
    """Its convert-torchvision-to-d2 script keeps statistics, and these tell where the weights come from."""
    theirs = {}
    for name, tensor in imagenet((1, 1, 1, 1)).items():
        name = name.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")
        for i in "123":
            name = name.replace(f"bn{i}", f"conv{i}.norm")
        for layer in "4321":
            name = name.replace(f"layer{layer}", f"res{int(layer) + 1}")
        theirs[name if name.startswith("res") else f"stem.{name}"] = tensor.numpy()
    weights = from_state_dict({"model": theirs, "__author__": "torchvision"}, source="R-50.pkl")
    wanted = from_state_dict(imagenet((1, 1, 1, 1)), source="a.pth")
    assert set(weights.state) == set(wanted.state)
    assert all(torch.equal(weights.state[n], wanted.state[n]) for n in wanted.state)
    assert weights.settings == wanted.settings and set(weights.preserved) == {
        "stem.fc.weight",
        "stem.fc.bias",
    }


def test_pixels_that_a_file_names_itself_are_believed():
    tensors = random_state(DETECTRON2, dense=True)
    tensors |= {
        "pixel_mean": torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1),
        "pixel_std": torch.tensor([58.395, 57.12, 57.375]).view(3, 1, 1),
        "anchor_generator.cell_anchors.0": torch.zeros(9, 4),
    }
    weights = from_state_dict({"model": tensors}, source="a.pkl")
    assert weights.settings["PIXEL_ORDER"] == "RGB" and weights.settings["PIXEL_STDS"][0] == 58.395
    assert set(weights.preserved) == {"pixel_mean", "pixel_std", "anchor_generator.cell_anchors.0"}


def test_a_cascade_is_refused():
    tensors = random_state(DETECTRON2, dense=False) | {"roi_heads.box_head.0.fc1.weight": torch.ones(2, 2)}
    with pytest.raises(InputError, match=r"box_head.0.fc1"):
        from_state_dict({"model": tensors}, source="a.pkl")
