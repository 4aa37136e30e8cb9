# SPDX-License-Identifier: Apache-2.0
"""Whole detectors of other frameworks, written to a file, against ours with the imported weights and settings."""

import pytest
import torch

from detectron_libra.builders.detector import build_detector
from detectron_libra.config import Config, infer, with_values
from detectron_libra.modeling.box_coding import decode
from detectron_libra.modeling.layout import cat_levels
from detectron_libra.structures import Batch, ImageMeta
from detectron_libra.weights.apply import apply_weights
from detectron_libra.weights.architecture import num_classes
from detectron_libra.weights.foreign import from_state_dict
from detectron_libra.weights.torch_file import load_torch
from tests.weights import their_networks as theirs
from tests.weights.frameworks import CLASSES, FRAMEWORKS

#: Sides that leave P6 and P7 with rounded-up sizes, where torchvision's cells come closer together.
HEIGHT, WIDTH = 160, 224
BOXES = torch.tensor([[3.0, 5, 60, 49], [100, 20, 223, 150], [10, 10, 18, 30], [0, 0, 224, 160]])


def ours(name, dense, folder):
    """The detector that the file's settings describe, its weights applied; and the raw state dict."""
    state = theirs.random_state(FRAMEWORKS[name], dense=dense)
    place = {"mmdetection": "state_dict", "detectron2": "model"}
    file = folder / "weights.pth"
    torch.save({place[name]: state} if name in place else state, file)
    weights = from_state_dict(load_torch(file), source=str(file))
    assert weights.kind == name and not weights.backbone_only
    cfg = with_values(infer(Config()), {**weights.settings, "CHANNELS_LAST": False})
    net = build_detector(cfg, num_classes(weights.state))
    apply_weights(net, weights)
    return net.eval(), state


def batch():
    pixels = torch.randint(0, 256, (1, 3, HEIGHT, WIDTH), generator=torch.Generator().manual_seed(3))
    meta = ImageMeta(0, "noise", HEIGHT, WIDTH, 1.0)
    return Batch(pixels.to(torch.uint8), torch.tensor([[HEIGHT, WIDTH]]), None, (meta,))


def normalised(name):
    """The image as the framework hands it to its network."""
    x = batch().images.float()
    means, stds = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
    if name == "detectron2":
        x, means, stds = x.flip(1), means[::-1], [1.0, 1.0, 1.0]
    return (x - torch.tensor(means).view(1, 3, 1, 1)) / torch.tensor(stds).view(1, 3, 1, 1)


def same_rows(found, wanted, tolerance):
    """Each row of one is a row of the other, whatever the order."""
    scale = wanted.abs().amax(0).clamp(min=1)
    distance = torch.cdist(found / scale, wanted / scale, p=float("inf"))
    assert distance.shape[0] == distance.shape[1]
    assert distance.amin(0).max() < tolerance and distance.amin(1).max() < tolerance
    assert len(distance.argmin(0).unique()) == len(wanted)


@pytest.fixture(params=FRAMEWORKS)
def name(request):
    return request.param


@torch.no_grad()
def test_a_retinanet_gives_the_same_boxes_and_scores(name, tmp_path):
    """Names, norms, stride, P6 and P7, pixels, anchors and their order, classes."""
    net, state = ours(name, True, tmp_path)
    f = FRAMEWORKS[name]
    wanted = theirs.levels(f, state, normalised(name), dense=True)
    found = net.features(batch())
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * b.abs().max().item())
    logits, deltas = net.head(found)
    anchors = torch.cat(net.anchors([x.shape[-2:] for x in found], "cpu"))
    boxes = decode(cat_levels(deltas, 4)[0], anchors, extent=0.0, clip_shrinking=False)
    rows = torch.cat([boxes, cat_levels(logits, CLASSES)[0].sigmoid()], -1)
    same_rows(rows, theirs.dense_rows(f, state, wanted, (HEIGHT, WIDTH)), 1e-4)


@torch.no_grad()
def test_a_faster_rcnn_gives_the_same_proposals_classes_and_boxes(name, tmp_path):
    """Anchors and RPN, RoIAlign, fully connected layers, order of the classes, deltas per class and their factors."""
    net, state = ours(name, False, tmp_path)
    f = FRAMEWORKS[name]
    wanted = theirs.levels(f, state, normalised(name), dense=False)
    found = net.features(batch())
    logits, deltas = net.rpn(found)
    anchors = torch.cat(net.anchors([x.shape[-2:] for x in found], "cpu"))
    boxes = decode(cat_levels(deltas, 4)[0], anchors, extent=0.0, clip_shrinking=False)
    rows = torch.cat([boxes, cat_levels(logits, 1)[0].sigmoid()], -1)
    same_rows(rows, theirs.proposal_rows(f, state, wanted, (HEIGHT, WIDTH)), 1e-4)

    logits, deltas = net.regions.classify(found, BOXES[None])
    weights = net.regions.box_weights
    boxes = decode(deltas[:, 1:], BOXES[:, None], weights=weights, extent=0.0, clip_shrinking=False)
    probabilities, their_boxes = theirs.region_outputs(f, state, wanted, BOXES)
    torch.testing.assert_close(logits.softmax(-1)[:, 1:], probabilities, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(boxes, their_boxes, rtol=1e-4, atol=1e-2)
