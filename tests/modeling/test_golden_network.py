# SPDX-License-Identifier: Apache-2.0
"""The whole Libra Faster R-CNN R-50 against numbers of mmdetection's, from a file of weights to gradients.

Both networks get parameters that a rule makes of mmdetection's names; ours reads them from a checkpoint. What is not
compared: gradients of the norms' scales and shifts (fixed here), and the sampling (both sides take everything, which
makes losses exact).
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from detectron_libra.builders.detector import build_detector
from detectron_libra.config import Config, infer, with_values
from detectron_libra.modeling.losses import SmoothL1Loss
from detectron_libra.modeling.matching import label_anchors_rpn
from detectron_libra.modeling.proposals import make_proposals
from detectron_libra.ops import backend
from detectron_libra.ops.match_boxes import pairwise_iou
from detectron_libra.structures import Batch, ImageMeta, Targets
from detectron_libra.weights.apply import apply_weights
from detectron_libra.weights.foreign import from_state_dict
from detectron_libra.weights.torch_file import load_torch
from tests.golden import load
from tests.modeling.mmdet_parameters import CLASSES, R50, background_last, their_name, write_checkpoint

# Half a minute without the kernels, nearly all of it in RoIAlign.
pytestmark = [] if backend.is_built() else [pytest.mark.slow]

HEIGHT, WIDTH = 96, 128
EVERY_REGION = 1000
#: Beside the settings that the importer finds: noise for pixels, and what only training needs.
CONFIG = {
    "PIXEL_MEANS": [0, 0, 0],
    "PIXEL_STDS": [1, 1, 1],
    "CHANNELS_LAST": False,
    "TRAIN.BATCH_SIZE_PER_IM": EVERY_REGION,
    "TRAIN.FG_FRACTION": 0.25,
    "TRAIN.RPN_STRADDLE_THRESH": -1,
    "TRAIN.RPN_PRE_NMS_TOP_N": 2000,
    "TRAIN.RPN_POST_NMS_TOP_N": 1000,
    "LIBRA.BALANCED_L1.ON": True,
    "LIBRA.IOU_SAMPLING.ON": True,
    "LIBRA.INSTANCE_SAMPLING.ON": True,
}


@pytest.fixture(scope="module")
def golden():
    arrays, meta = load("libra_frcnn_tiny")
    return {n: torch.from_numpy(v) for n, v in arrays.items()}, meta["parameters"]


@pytest.fixture(scope="module")
def model(golden, tmp_path_factory):
    file = tmp_path_factory.mktemp("golden") / "libra_faster_rcnn_r50.pth"
    write_checkpoint(file, R50)
    weights = from_state_dict(load_torch(file), source=str(file))
    net = build_detector(with_values(infer(Config()), {**weights.settings, **CONFIG}), CLASSES + 1)
    apply_weights(net, weights)
    net.rpn_box_loss = SmoothL1Loss(beta=0.0)  # mmdetection's configuration has L1
    return net.eval()


@pytest.fixture(scope="module")
def images(golden):
    arrays, _ = golden
    pixels = np.random.RandomState(7).standard_normal((1, 3, HEIGHT, WIDTH))  # noqa: NPY002
    found = Targets(
        arrays["gt_bboxes"][None], arrays["gt_labels"][None] + 1, torch.zeros(1, 4, dtype=torch.bool)
    )
    meta = ImageMeta(0, "noise", HEIGHT, WIDTH, 1.0)
    return Batch(torch.from_numpy(pixels.astype(np.float32)), torch.tensor([[HEIGHT, WIDTH]]), found, (meta,))


@pytest.fixture(scope="module")
def features(model, images):
    with torch.no_grad():
        stages = model.backbone(model.preprocess(images))
        levels = model.neck(stages)
        return stages, levels, list(model.balance(levels))


def close(found, wanted, tolerance=1e-3):
    """Equal within a share of the largest number: sums of thousands of float32 products."""
    scale = wanted.abs().max().clamp(min=1e-6)
    torch.testing.assert_close(found / scale, wanted / scale, rtol=0, atol=tolerance)


def test_features(golden, features):
    arrays, _ = golden
    stages, levels, balanced = features
    for i, stage in enumerate(stages.values()):
        close(stage[:, :8], arrays[f"backbone{i}_ch0_8"], 1e-4)
    for i in range(5):
        step = 8 if levels[i].shape[-1] > 10 else 1
        close(levels[i][:, ::step], arrays[f"fpn{i}"], 1e-4)
        close(balanced[i][:, ::step], arrays[f"bfp{i}"], 1e-4)


def test_outputs_of_the_proposal_network(golden, model, features):
    arrays, _ = golden
    with torch.no_grad():
        logits, deltas = model.rpn(features[2])
    for i in range(5):
        close(logits[i], arrays[f"rpn_cls{i}"], 1e-4)
        close(deltas[i], arrays[f"rpn_reg{i}"], 1e-4)


def propose(model, images, levels, rule):
    with torch.no_grad():
        raw = model.rpn(levels)
        anchors = model.anchors([x.shape[-2:] for x in levels], "cpu")
        return make_proposals(*raw, anchors, images.sizes, torch.ones(1), rule)


@pytest.mark.parametrize("name", ["proposals", "train_proposals"])
def test_proposals_are_the_same_boxes_in_the_same_order_but_for_ties(golden, model, images, features, name):
    """Scores of 0.9999999 tie or not by the last bit, so boxes are compared as a set: by IoU, and slivers that the
    image's edge leaves of a box, whose IoU the last bits decide, by distance in pixels.
    """
    arrays, _ = golden
    rule = model.test_proposals if name == "proposals" else model.train_proposals
    found = propose(model, images, features[2], rule)
    boxes, wanted = found.boxes[found.valid], arrays[name]
    assert len(boxes) == len(wanted)
    iou = pairwise_iou(boxes, wanted, extent=0.0)
    best = iou.argmax(0)
    assert len(set(best.tolist())) == len(wanted)
    slivers = (wanted[:, 2:] - wanted[:, :2]).amin(1) < 1
    assert iou.amax(0)[~slivers].min() > 0.999 and slivers.sum() < 0.1 * len(wanted)
    assert (boxes[best] - wanted)[slivers].abs().max() < 1e-3
    if name == "proposals":
        close(found.scores[found.valid], arrays["proposal_scores"], 1e-4)


def test_the_second_stage_on_the_same_proposals(golden, model, features):
    arrays, _ = golden
    boxes = arrays["proposals"][None, :64]
    with torch.no_grad():
        logits, deltas = model.regions.classify(features[2], boxes)
    close(background_last(logits.T).T, arrays["roi_cls"], 1e-4)
    close(deltas[:, 1:].flatten(1), arrays["roi_reg"], 1e-4)


def test_detections(golden, model, images):
    arrays, _ = golden
    with torch.no_grad():
        (found,) = model.eval()(images)
    assert (found.classes - 1).tolist() == arrays["det_labels"].tolist()
    close(found.scores, arrays["det_scores"], 1e-4)
    assert pairwise_iou(found.boxes, arrays["det_bboxes"], extent=0.0).diagonal().min() > 0.999


@pytest.fixture(scope="module")
def losses(golden, model, images):
    """Losses of a step in which every region and every labelled anchor is sampled, after the backward pass."""
    anchors = torch.cat(model.anchors([(HEIGHT // s, WIDTH // s) for s in (4, 8, 16, 32)] + [(2, 2)], "cpu"))
    match = label_anchors_rpn(
        anchors,
        images.targets,
        images.sizes,
        positive=0.7,
        negative=0.3,
        straddle=-1,
        extent=0.0,
        rule="continuous",
    )
    # mmdetection divides by the anchors it got, we by those asked for: ask for all there are.
    sampled = int((match.foreground | match.background).sum())
    model.rpn_rule = replace(model.rpn_rule, batch_size=sampled)
    values, metrics = model.train()(images)
    sum(values.values()).backward()
    model.eval()
    return values, metrics


def test_losses(golden, losses):
    _, parameters = golden
    wanted = {name: sum(values) for name, values in parameters["losses"].items()}
    values, _ = losses
    assert values["rpn_cls"].item() == pytest.approx(wanted["rpn_loss_rpn_cls"], rel=1e-4)
    assert values["rpn_bbox"].item() == pytest.approx(wanted["rpn_loss_rpn_bbox"], rel=1e-4)
    assert values["cls"].item() == pytest.approx(wanted["loss_cls"], rel=1e-4)
    assert values["bbox"].item() == pytest.approx(wanted["loss_bbox"], rel=1e-3)


def test_gradients_of_all_weights(golden, model, losses):
    arrays, parameters = golden
    rows = {name: i for i, name in enumerate(parameters["grad_names"])}
    ours = {their_name(n): (n, p.grad) for n, p in model.named_parameters() if p.requires_grad}
    assert set(rows) - set(ours) == {n for n in rows if ".bn" in n or "downsample.1" in n}
    assert set(ours) <= set(rows)
    for theirs, (name, gradient) in ours.items():
        if "cls_score" in name:
            gradient = background_last(gradient)
        elif "bbox_pred" in name:
            gradient = gradient[4:]
        size = arrays["grad_l2"][rows[theirs]].item()
        if size < 1e-4:  # phi's bias: a softmax does not see it, what is left is rounding
            assert theirs == "neck.1.refine.phi.conv.bias"
            continue
        assert gradient.norm().item() == pytest.approx(size, rel=1e-3), theirs
        first = gradient.flatten()[:8]
        torch.testing.assert_close(
            first, arrays["grad_first8"][rows[theirs]][: len(first)], rtol=5e-3, atol=1e-3 * size
        )
