# SPDX-License-Identifier: Apache-2.0
"""Checkpoints with mmdetection's names, and the values that the rule of the golden files gives to each."""

import functools
import json
import math
import sys
import types
import zlib
from pathlib import Path

import numpy as np
import torch

from detectron_libra.weights.mmdet import rules
from detectron_libra.weights.translate import our_name

CLASSES = 80
CLASS_NAMES = tuple(f"thing {i}" for i in range(CLASSES))
R50 = "libra_faster_rcnn_r50"


def scale_of_vector(name):
    """(offset, factor) of the normal numbers of a one-dimensional parameter."""
    if name.endswith("running_mean"):
        return 0.0, 0.1
    if ".bn" in name or "downsample.1" in name:
        middle = 0.4 if ".bn3." in name else 1.0
        return (middle, 0.1 * middle) if name.endswith("weight") else (0.0, 0.1)
    return (-2.0, 0.2) if "rpn_cls" in name else (0.0, 0.05)


def gain_of_matrix(name):
    """Factor of normal numbers over the square root of the inputs."""
    if name.endswith("fc_cls.weight"):
        return 3.0
    if "_reg" in name:
        return 0.2
    if "refine" in name:
        return 0.5
    return math.sqrt(2) if name.startswith("backbone") else 1.0


def rule_value(name, shape):
    """The parameter that the golden file's rule gives to mmdetection's ``name``: float32 of ``shape``."""
    generator = np.random.RandomState(zlib.crc32(name.encode()) & 0x7FFFFFFF)  # noqa: NPY002
    x = generator.standard_normal(int(np.prod(shape))).reshape(shape)
    if name.endswith("running_var"):
        x = 1.0 + 0.2 * np.abs(x)
    elif len(shape) == 1:
        offset, factor = scale_of_vector(name)
        x = offset + factor * x
    else:
        x = x * gain_of_matrix(name) / math.sqrt(np.prod(shape[1:]))
    return torch.from_numpy(x.astype(np.float32))


KEYS = Path(__file__).parents[1] / "data/golden/mmdet_keys.json"


def shapes(config):
    """{name: shape} of the state dict of a configuration of mmdetection 3.3, such as ``libra_faster_rcnn_r50``."""
    return {name: tuple(shape) for name, shape in json.loads(KEYS.read_text())[config].items()}


def write_checkpoint(path, config):
    """A file as mmdetection writes one, with an object of a framework in it that this machine does not have."""
    state = {name: rule_value(name, shape) for name, shape in shapes(config).items()}
    module = types.ModuleType("mmengine_stand_in")
    module.HistoryBuffer = type("HistoryBuffer", (), {"__module__": module.__name__})
    sys.modules[module.__name__] = module
    try:
        meta = {"iter": 87960, "log": module.HistoryBuffer(), "dataset_meta": {"CLASSES": CLASS_NAMES}}
        torch.save({"state_dict": state, "meta": meta}, path)
    finally:
        del sys.modules[module.__name__]


@functools.cache
def their_layers():
    """Our name of a layer of a Libra Faster R-CNN with ResNet-50 -> mmdetection's."""
    layers = {name.rpartition(".")[0] for name in shapes(R50)}
    return {our_name(layer, rules(finest=2)): layer for layer in layers}


def their_name(name):
    """mmdetection's name of our parameter of a Libra Faster R-CNN with ResNet-50."""
    layer, _, kind = name.rpartition(".")
    return f"{their_layers()[layer]}.{kind}"


def background_last(tensor):
    """Our rows of classes in mmdetection's order: 1..80, then the background."""
    return torch.cat([tensor[1:], tensor[:1]])
