# SPDX-License-Identifier: Apache-2.0
"""RetinaNet's losses: who learns, by what they are divided, and that nothing breaks without boxes."""

from dataclasses import replace

import pytest
import torch

from detectron_libra.geometry import CONTINUOUS, DETECTRON, GEOMETRIES
from detectron_libra.modeling.anchors import AnchorGrid, octave_anchors
from detectron_libra.modeling.box_coding import encode
from detectron_libra.modeling.layout import cat_levels
from detectron_libra.modeling.losses import BalancedL1Loss, SmoothL1Loss
from detectron_libra.modeling.matching import match_anchors_retinanet
from detectron_libra.modeling.retinanet_loss import (
    NegativeChoice,
    RetinaNetRule,
    retinanet_losses,
)
from detectron_libra.modeling.sampling import IoUSampling
from detectron_libra.ops.focal_loss import focal_loss
from tests.modeling.scenes import targets

CLASSES, STRIDES, MAPS = 3, (8, 16), [(8, 8), (4, 4)]
BETA = 0.11
OBJECTS = [(8, 8, 39, 39, 2), (20, 16, 62, 60, 3)]


def rule(geometry=DETECTRON, **changes):
    base = RetinaNetRule(
        positive=0.5,
        negative=0.4,
        alpha=0.25,
        gamma=2.0,
        num_classes=CLASSES,
        softmax=False,
        geometry=geometry,
        assignment=geometry.rules,
    )
    return replace(base, **changes)


def outputs(images=1, softmax=False, geometry=DETECTRON, dtype=torch.float32):
    """Raw outputs that ask for gradients, and their anchors."""
    torch.manual_seed(3)
    bases = [octave_anchors(s, (1.0, 2.0, 0.5), geometry=geometry) for s in STRIDES]
    count = len(bases[0])
    logits = [torch.randn(images, count * (CLASSES + softmax), h, w).to(dtype) for h, w in MAPS]
    deltas = [torch.randn(images, count * 4, h, w).to(dtype) for h, w in MAPS]
    for t in logits + deltas:
        t.requires_grad_()
    return logits, deltas, AnchorGrid(bases, STRIDES)(MAPS, "cpu")


def run(found, r=None, box_loss=None, raw=None):
    raw = raw or outputs(found.classes.shape[0], geometry=(r or rule()).geometry)
    return retinanet_losses(*raw, found, rule=r or rule(), box_loss=box_loss or SmoothL1Loss(beta=BETA))


def match(found, anchors, r):
    return match_anchors_retinanet(
        torch.cat(anchors),
        found,
        positive=r.positive,
        negative=r.negative,
        extent=r.geometry.extent,
        rule=r.assignment,
        crowd_threshold=r.crowd_threshold,
    )


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
def test_both_losses_are_sums_over_all_levels_divided_by_the_foreground_of_the_batch(geometry):
    """Detectron's fl_fpn* and retnet_loss_bbox_fpn*: one divisor for all levels and images."""
    found, r = targets(OBJECTS, OBJECTS[:1]), rule(geometry)
    logits, deltas, anchors = raw = outputs(2, geometry=geometry)
    losses, metrics = run(found, r, raw=raw)
    m = match(found, anchors, r)
    per_level = m.labels.split([len(a) for a in anchors], 1)
    options = {"alpha": 0.25, "gamma": 2.0, "num_classes": CLASSES}
    cls = sum(focal_loss(x, y, **options) for x, y in zip(logits, per_level, strict=True))
    torch.testing.assert_close(losses["cls"], cls / m.foreground)
    n, row = (m.labels > 0).nonzero(as_tuple=True)
    wanted = encode(torch.cat(anchors)[row], found.boxes[n, m.index[n, row]], extent=geometry.extent)
    total = SmoothL1Loss(beta=BETA)(cat_levels(deltas, 4)[n, row], wanted, reduction="sum")
    torch.testing.assert_close(losses["bbox"], total / m.foreground)
    assert metrics["num_fg"] == len(row) > 0 and metrics["num_bg"] == (m.labels == 0).sum()


def test_detectron_counts_one_more_foreground_per_image_and_continuous_does_not():
    found = targets(OBJECTS, OBJECTS)
    for geometry in (DETECTRON, CONTINUOUS):
        r = rule(geometry)
        m = match(found, outputs(geometry=geometry)[2], r)
        positives = (m.labels > 0).sum()
        assert m.foreground >= positives + 2 if geometry is DETECTRON else m.foreground == positives


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
@pytest.mark.parametrize(
    "found", [targets([], []), targets([(0, 0, 0, 0, 0)] * 2, [])], ids=["none", "padding"]
)
@pytest.mark.parametrize(
    "box_loss", [SmoothL1Loss(beta=BETA), BalancedL1Loss(beta=BETA)], ids=["smooth", "balanced"]
)
def test_images_without_boxes_give_finite_losses_and_no_gradient_of_boxes(geometry, found, box_loss):
    raw = outputs(2, geometry=geometry)
    losses, metrics = run(found, rule(geometry), box_loss, raw)
    (losses["cls"] + losses["bbox"]).backward()
    assert losses["cls"].isfinite() and losses["cls"] > 0 and losses["bbox"] == 0
    assert metrics["num_fg"] == 0
    assert all(not d.grad.any() for d in raw[1]) and all(x.grad.isfinite().all() for x in raw[0])


def test_padding_rows_change_nothing():
    plain, padded = targets(OBJECTS), targets([*OBJECTS, (0, 0, 0, 0, 0), (0, 0, 0, 0, 0)])
    for name, value in run(plain)[0].items():
        torch.testing.assert_close(run(padded)[0][name], value, rtol=0, atol=0)


def test_boxes_away_from_positives_get_no_gradient():
    found = targets(OBJECTS)
    raw = outputs()
    run(found, raw=raw)[0]["bbox"].backward()
    gradient = cat_levels([d.grad for d in raw[1]], 4)[0].any(1)
    positive = match(found, raw[2], rule()).labels[0] > 0
    assert torch.equal(gradient, positive)


def test_ignored_anchors_do_not_train_the_classes():
    found = targets(OBJECTS)
    raw = outputs()
    run(found, raw=raw)[0]["cls"].backward()
    gradient = cat_levels([x.grad for x in raw[0]], CLASSES)[0].any(1)
    labels = match(found, raw[2], rule()).labels[0]
    assert (labels == -1).any() and torch.equal(gradient, labels >= 0)


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
def test_crowds_are_never_positive_and_are_ignored_where_asked(geometry):
    crowd = targets([(0, 0, 63, 63, 1, True)])
    background = run(crowd, rule(geometry))[1]
    ignored = run(crowd, rule(geometry, crowd_threshold=0.5))[1]
    assert background["num_fg"] == ignored["num_fg"] == 0
    assert ignored["num_bg"] < background["num_bg"] == sum(len(a) for a in outputs()[2])


@pytest.mark.parametrize("number", [1, 40])
def test_iou_sampling_takes_a_number_of_negatives_per_image(number):
    """Every image gets its own share, and anchors that were not chosen do not train."""
    found = targets(OBJECTS, [], OBJECTS[1:])
    raw = outputs(3)
    r = rule(negatives=NegativeChoice(number, IoUSampling()))
    losses, metrics = run(found, r, raw=raw)
    assert metrics["num_bg"] == 3 * number
    losses["cls"].backward()
    labels = match(found, raw[2], r).labels
    trained = cat_levels([x.grad for x in raw[0]], CLASSES).any(2)
    assert (trained & (labels == 0)).sum(1).tolist() == [number] * 3
    assert (trained | (labels <= 0)).all()


def test_iou_sampling_leaves_the_box_loss_and_the_divisor():
    found, r = targets(OBJECTS), rule(negatives=NegativeChoice(10**6, IoUSampling()))
    for name, value in run(found)[0].items():
        torch.testing.assert_close(run(found, r)[0][name], value)


def test_softmax_reads_one_more_channel():
    found, r = targets(OBJECTS), rule(softmax=True)
    raw = outputs(softmax=True)
    losses, _ = run(found, r, raw=raw)
    m = match(found, raw[2], r)
    logits = cat_levels(raw[0], CLASSES + 1)[0]
    keep = m.labels[0] >= 0
    log_p = logits.log_softmax(1)[torch.arange(len(keep)), m.labels[0].clamp(min=0)][keep]
    share = torch.where(m.labels[0][keep] > 0, 0.25, 0.75)
    torch.testing.assert_close(losses["cls"], (share * (1 - log_p.exp()) ** 2 * -log_p).sum() / m.foreground)


def test_bfloat16_outputs_give_float32_losses():
    losses, _ = run(targets(OBJECTS), raw=outputs(dtype=torch.bfloat16))
    assert all(v.dtype == torch.float32 and v.isfinite() for v in losses.values())
