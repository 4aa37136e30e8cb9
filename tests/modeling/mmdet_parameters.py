# SPDX-License-Identifier: Apache-2.0
"""Our names of a Faster R-CNN's parameters in mmdetection's words, and the values that a rule gives them there."""

import math
import re
import zlib

import numpy as np
import torch

CLASSES = 80
BN_EPS = 1e-5


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


PREFIXES = [
    (r"backbone\.stem\.conv", "backbone.conv1"),
    (r"backbone\.stem\.norm", "backbone.bn1"),
    (r"backbone\.res(\d)\.(\d+)\.conv(\d)", lambda m: f"backbone.layer{int(m[1]) - 1}.{m[2]}.conv{m[3]}"),
    (r"backbone\.res(\d)\.(\d+)\.norm(\d)", lambda m: f"backbone.layer{int(m[1]) - 1}.{m[2]}.bn{m[3]}"),
    (
        r"backbone\.res(\d)\.(\d+)\.shortcut_norm",
        lambda m: f"backbone.layer{int(m[1]) - 1}.{m[2]}.downsample.1",
    ),
    (r"backbone\.res(\d)\.(\d+)\.shortcut", lambda m: f"backbone.layer{int(m[1]) - 1}.{m[2]}.downsample.0"),
    (r"neck\.lateral\.(\d)", lambda m: f"neck.0.lateral_convs.{int(m[1]) - 2}.conv"),
    (r"neck\.output\.(\d)", lambda m: f"neck.0.fpn_convs.{int(m[1]) - 2}.conv"),
    (r"balance\.refine\.(\w+)", r"neck.1.refine.\1.conv"),
    (r"rpn\.conv", "rpn_head.rpn_conv"),
    (r"rpn\.objectness", "rpn_head.rpn_cls"),
    (r"rpn\.deltas", "rpn_head.rpn_reg"),
    (r"regions\.head\.fc6", "roi_head.bbox_head.shared_fcs.0"),
    (r"regions\.head\.fc7", "roi_head.bbox_head.shared_fcs.1"),
    (r"regions\.predictor\.cls_score", "roi_head.bbox_head.fc_cls"),
    (r"regions\.predictor\.bbox_pred", "roi_head.bbox_head.fc_reg"),
]


def their_name(name):
    """mmdetection's name of our parameter or buffer."""
    stem, kind = name.rsplit(".", 1)
    for pattern, new in PREFIXES:
        if re.fullmatch(pattern, stem):
            return f"{re.sub(pattern, new, stem)}.{kind}"
    raise AssertionError(f"no name for {name}")


def background_last(tensor):
    """Our rows of classes in mmdetection's order: 1..80, then the background."""
    return torch.cat([tensor[1:], tensor[:1]])


def from_theirs(name, shape):
    """Our parameter ``name`` from the rule."""
    theirs = their_name(name)
    if "norm" in name:
        stem = theirs.rsplit(".", 1)[0]
        weight, bias, mean, var = (
            rule_value(f"{stem}.{kind}", shape) for kind in ("weight", "bias", "running_mean", "running_var")
        )
        scale = weight / (var + BN_EPS).sqrt()
        return scale if name.endswith("weight") else bias - mean * scale
    if "cls_score" in name:
        value = rule_value(theirs, shape)
        return torch.cat([value[-1:], value[:-1]])
    if "bbox_pred" in name:
        value = rule_value(theirs, (4 * CLASSES, *shape[1:]))
        return torch.cat([torch.zeros_like(value[:4]), value])
    return rule_value(theirs, shape)
