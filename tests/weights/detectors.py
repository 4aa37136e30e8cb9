# SPDX-License-Identifier: Apache-2.0
"""Detectors whose blobs are listed in tests/data/detectron_blobs, and others, without memory for their weights."""

from pathlib import Path

import torch

from detectron_libra.builders.detector import build_detector
from detectron_libra.config import load_config
from tests.builders import small

TABLES = Path(__file__).resolve().parent.parent / "data/detectron_blobs"
BASELINES = Path(__file__).resolve().parents[2] / "configs/baselines"
CLASSES = 81

RETINANET = ("retinanet_R-50-FPN_1x.yaml", {})
FASTER_RCNN = ("faster_rcnn_R-50-FPN_1x.yaml", {})
C4 = (
    "faster_rcnn_R-50-FPN_1x.yaml",
    {
        "MODEL.CONV_BODY": "ResNet.add_ResNet50_conv4_body",
        "FPN.FPN_ON": "False",
        "FPN.MULTILEVEL_RPN": "False",
        "FPN.MULTILEVEL_ROIS": "False",
        "FAST_RCNN.ROI_BOX_HEAD": "ResNet.add_ResNet_roi_conv5_head",
        "FAST_RCNN.ROI_XFORM_RESOLUTION": "14",
        "RPN.SIZES": "(32, 64, 128, 256, 512)",
    },
)
RPN = (
    "faster_rcnn_R-50-FPN_1x.yaml",
    {"MODEL.FASTER_RCNN": "False", "MODEL.RPN_ONLY": "True", "FPN.MULTILEVEL_ROIS": "False"},
)
#: Table of blobs -> configuration.
LISTED = {
    "retinanet_R-50-FPN": RETINANET,
    "faster_rcnn_R-50-FPN": FASTER_RCNN,
    "faster_rcnn_R-50-C4": C4,
    "rpn_R-50-FPN": RPN,
}
#: A sixteenth of the channels.
NARROW = {"RESNETS.WIDTH": "4", "FPN.DIM": "16", "FAST_RCNN.MLP_HEAD_DIM": "32"}


def build(base, changes, device="meta"):
    """The detector of a configuration of ours with changes; ``meta``: shapes alone."""
    options = [part for pair in changes.items() for part in pair]
    with torch.device(device):
        return build_detector(load_config(str(BASELINES / base), options), CLASSES)


def table(name):
    """Blob -> (shape, mark) of a table: f fixed, a affine, t trained."""
    lines = (TABLES / f"blobs_{name}.tsv").read_text().splitlines()[1:]
    rows = (line.split("\t") for line in lines)
    return {blob: (tuple(map(int, shape.split("x"))), mark) for blob, shape, mark in rows}


def fill(model, seed=0):
    """A state of the model's shapes with random float32 numbers, all different from the initial ones."""
    draw = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(t.shape, generator=draw)
        if t.is_floating_point()
        else torch.zeros(t.shape, dtype=t.dtype)
        for name, t in model.state_dict().items()
    }


def small_state(kind, seed=0):
    """A small detector's shapes filled with numbers, Libra's parts included."""
    return fill(build_detector(small.libra(kind), 4), seed)


def trained(kind):
    model = build_detector(small.libra(kind), 4)
    return {n: torch.randn(p.shape) for n, p in model.named_parameters() if p.requires_grad}


def same(a, b):
    assert list(a) == list(b)
    for name, tensor in a.items():
        other = b[name]
        assert tensor.dtype == other.dtype and tensor.shape == other.shape, name
        assert torch.equal(
            tensor.view(torch.uint8) if tensor.ndim else tensor,
            other.view(torch.uint8) if other.ndim else other,
        )
