# SPDX-License-Identifier: Apache-2.0
"""What is measured is what is trained on: residuals give the detector's own box loss, samples its own numbers."""

import pytest
import torch

from detectron_libra.analysis.assigned import assign_boxes
from detectron_libra.builders.detector import build_detector
from detectron_libra.ops.balanced_l1 import smooth_l1
from tests.builders.small import config
from tests.modeling.scenes import batch, targets

SIZES = [(96, 128), (128, 70), (64, 64)]
THREE = targets([(8, 8, 60, 70, 1), (40, 20, 90, 60, 3)], [(5, 5, 40, 60, 2)], [])
STAGES = {
    "retinanet": ["anchors"],
    "faster_rcnn": ["anchors", "proposals"],
    "c4": ["anchors", "proposals"],
    "rpn_only": ["anchors"],
    "fast_rcnn": ["proposals"],
}
#: So much is drawn that nothing is left to chance.
EVERYTHING = {
    "TRAIN__BATCH_SIZE_PER_IM": 256,
    "TRAIN__RPN_BATCH_SIZE_PER_IM": 65536,
    "TRAIN__RPN_STRADDLE_THRESH": -1,
}


def measured(kind, found=THREE, sizes=SIZES, **changes):
    """(model, levels, batch, what is assigned in each stage)."""
    torch.manual_seed(1)
    model = build_detector(config(kind, **changes), 4).train()
    b = batch(sizes, found)
    with torch.no_grad():
        levels = model.features(b)
    return model, levels, b, assign_boxes(model, levels, b)


@pytest.mark.parametrize("kind", STAGES)
def test_every_detector_is_measured_with_and_without_objects(kind):
    for found in (THREE, targets([], [], [])):
        *_, stages = measured(kind, found)
        assert list(stages) == STAGES[kind]
        for a in stages.values():
            shape = a.iou.shape
            assert shape == a.positive.shape == a.background.shape == a.drawn.shape == a.objectness.shape
            assert not (a.positive & a.background).any() and not (a.drawn & ~a.positive).any()
            assert ((a.objectness >= 0) & (a.objectness <= 1)).all() and a.residuals.isfinite().all()
            assert (a.iou[a.background] < a.high).all()
            assert bool(a.positive.any()) == (found is THREE)


@pytest.mark.parametrize("geometry", ["detectron", "continuous"])
def test_residuals_give_the_box_loss_of_a_retinanet(geometry):
    model, levels, b, stages = measured("retinanet", MODEL__BOX_GEOMETRY=geometry)
    losses, metrics = model.losses(levels, b)
    a = stages["anchors"]
    assert a.positive.sum() == metrics["num_fg"] and a.background.sum() == metrics["num_bg"]
    count = a.positive.sum() + (len(SIZES) if geometry == "detectron" else 0)
    total = smooth_l1(a.residuals, torch.zeros_like(a.residuals), beta=model.box_loss.beta, reduction="sum")
    torch.testing.assert_close(total / count, losses["bbox"])


@pytest.mark.parametrize("agnostic", [False, True])
@pytest.mark.parametrize("kind", ["fast_rcnn", "faster_rcnn", "c4"])
def test_residuals_give_the_box_loss_of_a_second_stage(kind, agnostic):
    changes = EVERYTHING | {"MODEL__CLS_AGNOSTIC_BBOX_REG": agnostic}
    model, levels, b, stages = measured(kind, **changes)
    losses, metrics = model.losses(levels, b)
    a = stages["proposals"]
    assert torch.equal(a.drawn, a.positive) and a.drawn.sum() == metrics["num_fg"]
    count = (a.positive | a.background).sum()
    total = smooth_l1(a.residuals, torch.zeros_like(a.residuals), beta=1.0, reduction="sum")
    torch.testing.assert_close(total / count, losses["bbox"])


def test_residuals_give_the_box_loss_of_a_proposal_network():
    one = targets([(8, 8, 60, 70, 1), (40, 20, 90, 60, 3)])
    changes = EVERYTHING | {"MODEL__BOX_GEOMETRY": "continuous"}
    model, levels, b, stages = measured("rpn_only", one, SIZES[:1], **changes)
    losses, _ = model.losses(levels, b)
    a = stages["anchors"]
    count = (a.drawn | a.background).sum()
    total = smooth_l1(a.residuals, torch.zeros_like(a.residuals), beta=1 / 9, reduction="sum")
    torch.testing.assert_close(total / count, losses["rpn_bbox"])


def test_a_step_draws_as_many_positives_and_negatives_as_the_keys_say():
    *_, stages = measured("faster_rcnn", TRAIN__BATCH_SIZE_PER_IM=32, TRAIN__RPN_BATCH_SIZE_PER_IM=64)
    a = stages["proposals"]
    assert torch.equal(a.drawn.sum(1), a.positive.sum(1).clamp(max=8))
    assert torch.equal(a.negatives, 32 - a.drawn.sum(1))
    first = stages["anchors"]
    assert (first.drawn.sum(1) <= 32).all() and torch.equal(first.negatives, 64 - first.drawn.sum(1))


def test_anchors_know_their_level_and_proposals_the_one_they_are_cut_from():
    model, levels, _, stages = measured("faster_rcnn")
    anchors = model.anchors([level.shape[2:] for level in levels], "cpu")
    assert stages["anchors"].level.bincount().tolist() == [len(a) for a in anchors]
    a = stages["proposals"]
    assert a.level.shape == a.iou.shape and 0 <= a.level.min() <= a.level.max() < model.regions.pooling.levels
    # the ground truth comes last: 53 x 63 and 51 x 41 pixels are on the finest level of a head made for 224 on P4
    assert a.level[0, -2:].tolist() == [0, 0]


def test_an_image_that_is_shown_larger_has_the_same_residuals_and_overlaps():
    """Detectron's second stage compares boxes in the original's pixels, and so does what is measured."""
    found = targets([(8, 8, 60, 70, 1)])
    torch.manual_seed(1)
    model = build_detector(config("fast_rcnn", **EVERYTHING), 4).train()
    b = batch([(96, 128)], found, scales=[2.0])
    with torch.no_grad():
        levels = model.features(b)
    losses, _ = model.losses(levels, b)
    a = assign_boxes(model, levels, b)["proposals"]
    count = (a.positive | a.background).sum()
    total = smooth_l1(a.residuals, torch.zeros_like(a.residuals), beta=1.0, reduction="sum")
    torch.testing.assert_close(total / count, losses["bbox"])


@pytest.mark.parametrize("kind", ["retinanet", "faster_rcnn"])
def test_anchors_are_assigned_as_the_configuration_says(kind):
    plain, other = (measured(kind, **keys)[-1]["anchors"] for keys in ({}, {"ASSIGNER__KIND": "atss"}))
    assert other.positive.any() and not torch.equal(plain.positive, other.positive)
    assert (other.iou[other.background] < other.high).all() and other.high > plain.high
