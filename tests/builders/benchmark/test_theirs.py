# SPDX-License-Identifier: Apache-2.0
"""torchvision's side: the same network, and the same images and boxes."""

import pytest
import torch

from detectron_libra.benchmarks.peer import torchvision
from detectron_libra.builders.benchmark import plan
from detectron_libra.builders.benchmark.plan import Contender, Order, Size
from detectron_libra.builders.benchmark.their_model import build_model
from detectron_libra.builders.benchmark.theirs import build_theirs
from detectron_libra.builders.benchmark.worker import Worker
from detectron_libra.builders.detector import build_detector
from tests.builders.small import config

pytestmark = pytest.mark.skipif(torchvision()[0] is None, reason=torchvision()[1])

BODY = {"RESNETS__WIDTH": 64, "DEVICE": "cpu"}
CHANGES = {"retinanet": BODY | {"RETINANET__NUM_CONVS": 4}, "faster_rcnn": BODY}
SIZE = Size(64, 90)


def cfg_of(kind, **changes):
    return config(kind, **CHANGES[kind], **changes)


def order(kind, mode, **changes):
    return Order(cfg_of(kind, **changes), Contender(plan.TORCHVISION, mode, "fp32"), SIZE, 2, 3, 32)


def sizes_of(model, *, trained):
    return sorted(tuple(p.squeeze().shape) for p in model.parameters() if p.requires_grad or not trained)


def convolutions(body):
    found = [m for m in body.modules() if isinstance(m, torch.nn.Conv2d)]
    return sorted((c.kernel_size, c.stride, c.in_channels, c.out_channels) for c in found)


@pytest.mark.parametrize("body", ["resnet18", "resnet50"])
@pytest.mark.parametrize("kind", CHANGES)
def test_both_networks_have_the_same_weights_and_train_the_same(kind, body):
    stages = {"RESNETS__STAGE_BLOCKS": "()", "MODEL__CONV_BODY": f"FPN.add_fpn_{body}_conv5_body"}
    cfg = cfg_of(kind, **stages)
    ours, theirs = build_detector(cfg, 4), build_model(cfg, SIZE, 32)
    for trained in (True, False):
        assert sizes_of(ours, trained=trained) == sizes_of(theirs, trained=trained)
    assert convolutions(ours.backbone) == convolutions(theirs.backbone.body)


@pytest.mark.parametrize("kind", CHANGES)
def test_both_have_the_same_anchors(kind):
    cfg = cfg_of(kind, MODEL__BOX_GEOMETRY="torchvision")  # the others round in another way
    ours, theirs = build_detector(cfg, 4), build_model(cfg, SIZE, 32)
    generator = theirs.anchor_generator if kind == "retinanet" else theirs.rpn.anchor_generator
    assert generator.num_anchors_per_location() == ours.anchors.anchors_per_cell
    for mine, cell in zip(ours.anchors.bases, generator.cell_anchors, strict=True):
        assert sorted(mine.tolist()) == sorted(cell.tolist())


@pytest.mark.parametrize("mode", plan.MODES)
@pytest.mark.parametrize("kind", CHANGES)
def test_its_parts_are_found(kind, mode):
    worker = Worker(order(kind, mode))
    assert worker.turn(1) > 0
    shares = worker.profiled(5, None)["shares"]
    assert sum(shares.values()) == pytest.approx(1) and shares["backbone"] > 0
    wanted = {"heads", "matching", "losses", "optimizer"} if mode == "train" else {"heads", "postprocess"}
    assert {name for name in wanted if shares[name] > 0} == wanted


@pytest.mark.parametrize("kind", CHANGES)
def test_candidates_are_counted_where_there_is_no_threshold(kind):
    none = {"RETINANET__INFERENCE_TH": 0.0, "TEST__SCORE_THRESH": 0.0, "TEST__RPN_POST_NMS_TOP_N": 20}
    counts = build_theirs(order(kind, "test", **none)).counts()
    anchors = sum(9 * 3 * h * w for h, w in ((8, 12), (4, 6), (2, 3), (1, 2), (1, 1)))
    most = anchors if kind == "retinanet" else 3 * 20
    assert 0 < counts["detections"] <= counts["candidates"] <= most
