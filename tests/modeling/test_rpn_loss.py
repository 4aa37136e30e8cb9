# SPDX-License-Identifier: Apache-2.0
"""The proposal network's losses: fixed divisor of scores, per-image divisor of boxes, and its sample."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from detectron_libra.geometry import CONTINUOUS, DETECTRON, GEOMETRIES
from detectron_libra.modeling.anchors import AnchorGrid, base_anchors
from detectron_libra.modeling.box_coding import encode
from detectron_libra.modeling.layout import cat_levels
from detectron_libra.modeling.losses import SmoothL1Loss
from detectron_libra.modeling.matching import label_anchors_rpn
from detectron_libra.modeling.rpn_loss import RPNRule, rpn_losses
from tests.modeling.scenes import targets

STRIDES, MAPS = (8, 16), [(8, 8), (4, 4)]
OBJECTS = [(8, 8, 39, 39, 1), (20, 16, 62, 60, 2)]
LOSS = SmoothL1Loss(beta=1 / 9)
EVERY = 4096


def rule(geometry=CONTINUOUS, **changes):
    base = RPNRule(
        positive=0.7,
        negative=0.3,
        straddle=-1,
        batch_size=EVERY,
        fg_fraction=0.5,
        geometry=geometry,
        assignment=geometry.rules,
    )
    return replace(base, **changes)


def outputs(images=1, geometry=CONTINUOUS):
    torch.manual_seed(4)
    bases = [base_anchors(s, [4 * s], (0.5, 1.0, 2.0), geometry=geometry) for s in STRIDES]
    logits = [torch.randn(images, 3, h, w, requires_grad=True) for h, w in MAPS]
    deltas = [torch.randn(images, 12, h, w, requires_grad=True) for h, w in MAPS]
    return logits, deltas, AnchorGrid(bases, STRIDES)(MAPS, "cpu")


def sizes(n):
    return torch.tensor([[64, 64]] * n)


def run(found, r=None, raw=None):
    n = found.classes.shape[0]
    r = r or rule()
    return rpn_losses(*(raw or outputs(n, r.geometry)), found, sizes(n), rule=r, box_loss=LOSS)


def match(found, anchors, r):
    return label_anchors_rpn(
        torch.cat(anchors),
        found,
        sizes(found.classes.shape[0]),
        positive=r.positive,
        negative=r.negative,
        straddle=r.straddle,
        extent=r.geometry.extent,
        rule=r.assignment,
        crowd_threshold=r.crowd_threshold,
    )


def test_scores_are_divided_by_the_anchors_asked_for_and_boxes_by_those_an_image_got():
    """Detectron: a fixed divisor for objectness, 1 / (examples of the image) for boxes, mean over images."""
    found = targets(OBJECTS, OBJECTS[1:])
    logits, deltas, anchors = raw = outputs(2)
    losses, metrics = run(found, raw=raw)
    m = match(found, anchors, rule())
    score, pred = cat_levels(logits, 1)[..., 0], cat_levels(deltas, 4)
    learned = m.foreground | m.background
    cls = F.binary_cross_entropy_with_logits(score[learned], m.foreground[learned].float(), reduction="sum")
    torch.testing.assert_close(losses["rpn_cls"], cls / (EVERY * 2))
    bbox = 0
    for n in range(2):
        row = m.foreground[n].nonzero()[:, 0]
        wanted = encode(torch.cat(anchors)[row], found.boxes[n, m.index[n, row]], extent=0.0)
        bbox = bbox + LOSS(pred[n, row], wanted, reduction="sum") / learned[n].sum()
    torch.testing.assert_close(losses["rpn_bbox"], bbox / 2)
    assert metrics["rpn_fg"] == m.foreground.sum() / 2 > 0


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
@pytest.mark.parametrize("found", [targets([], []), targets([(0, 0, 0, 0, 0)], [])], ids=["none", "padding"])
def test_images_without_boxes_give_finite_losses_and_no_gradient_of_boxes(geometry, found):
    raw = outputs(2, geometry)
    losses, metrics = run(found, rule(geometry, batch_size=32), raw)
    (losses["rpn_cls"] + losses["rpn_bbox"]).backward()
    assert losses["rpn_cls"].isfinite() and losses["rpn_cls"] > 0 and losses["rpn_bbox"] == 0
    assert metrics["rpn_fg"] == 0 and not any(d.grad.any() for d in raw[1])


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
def test_at_most_the_batch_size_learns_and_no_more_than_its_share_of_positives(geometry):
    found, raw = targets(OBJECTS, OBJECTS), outputs(2, geometry)
    r = rule(geometry, positive=0.3, batch_size=16, fg_fraction=0.25)
    losses, metrics = run(found, r, raw)
    losses["rpn_cls"].backward()
    learned = cat_levels([x.grad for x in raw[0]], 1)[..., 0] != 0
    assert metrics["rpn_fg"] <= 4
    # Drawn with replacement (Detectron), fewer different ones may come out.
    assert (learned.sum(1) <= 16).all() and (learned.sum(1) == 16).all() | (geometry is DETECTRON)


def test_anchors_that_leave_the_image_do_not_learn():
    found, raw = targets(OBJECTS), outputs()
    run(found, rule(straddle=0), raw)[0]["rpn_cls"].backward()
    learned = cat_levels([x.grad for x in raw[0]], 1)[0, :, 0] != 0
    boxes = torch.cat(raw[2])[learned]
    assert learned.any() and (boxes >= 0).all() and (boxes < 64).all()


def test_every_anchor_outside_gives_zero_losses():
    """A small image: no anchor fits, and the loss is a number still."""
    found = targets([(2, 2, 9, 9, 1)])
    losses, _ = rpn_losses(*outputs(), found, torch.tensor([[12, 12]]), rule=rule(straddle=0), box_loss=LOSS)
    assert losses["rpn_cls"] == 0 and losses["rpn_bbox"] == 0


def test_crowds_are_no_positives_and_ignored_where_asked():
    crowd, raw = targets([(0, 0, 64, 64, 1, True)]), outputs()
    losses, metrics = run(crowd, rule(crowd_threshold=0.5), raw)
    losses["rpn_cls"].backward()
    learned = cat_levels([x.grad for x in raw[0]], 1)[0, :, 0] != 0
    m = match(crowd, raw[2], rule(crowd_threshold=0.5))
    assert metrics["rpn_fg"] == 0 and torch.equal(learned, m.background[0]) and not learned.all()
    everything, _ = run(crowd, rule())
    assert everything["rpn_cls"] > losses["rpn_cls"]


def test_padding_rows_change_nothing():
    padded = targets([*OBJECTS, (0, 0, 0, 0, 0)])
    for name, value in run(targets(OBJECTS))[0].items():
        torch.testing.assert_close(run(padded)[0][name], value, rtol=0, atol=0)
