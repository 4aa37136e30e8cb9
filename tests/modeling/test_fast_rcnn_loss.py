# SPDX-License-Identifier: Apache-2.0
"""The second stage's losses: divided by the sampled regions, boxes of the region's own class."""

import pytest
import torch
from torch.nn import functional as F

from detectron_libra.modeling.box_coding import encode
from detectron_libra.modeling.fast_rcnn_loss import fast_rcnn_losses
from detectron_libra.modeling.losses import BalancedL1Loss, SmoothL1Loss

CLASSES, WEIGHTS = 4, (10.0, 10.0, 5.0, 5.0)
REGIONS = torch.tensor([[0, 0, 20, 30], [5, 5, 40, 25], [8, 2, 30, 33], [1, 1, 9, 9], [0, 0, 0, 0]]).float()
MATCHED = REGIONS + torch.tensor([1.0, -2.0, 3.0, 4.0])
LABELS = torch.tensor([2, 0, 3, 1, 0])
VALID = torch.tensor([True, True, True, True, False])


def outputs(columns=CLASSES):
    torch.manual_seed(5)
    return torch.randn(5, CLASSES, requires_grad=True), torch.randn(5, columns, 4, requires_grad=True)


def run(logits, deltas, labels=LABELS, valid=VALID, box_loss=None, extent=1.0, boxed=None):
    return fast_rcnn_losses(
        logits,
        deltas,
        REGIONS,
        MATCHED,
        labels,
        valid,
        box_weights=WEIGHTS,
        extent=extent,
        box_loss=box_loss or SmoothL1Loss(beta=1.0),
        boxed=boxed,
    )


@pytest.mark.parametrize("extent", [0.0, 1.0])
@pytest.mark.parametrize("box_loss", [SmoothL1Loss(beta=1.0), BalancedL1Loss()], ids=["smooth", "balanced"])
def test_both_are_divided_by_the_number_of_sampled_regions(box_loss, extent):
    """Also the boxes: by positives and negatives together (Detectron, and avg_factor in mmdetection)."""
    logits, deltas = outputs()
    losses, metrics = run(logits, deltas, box_loss=box_loss, extent=extent)
    torch.testing.assert_close(losses["cls"], F.cross_entropy(logits[:4], LABELS[:4]))
    rows = torch.tensor([0, 2, 3])
    wanted = encode(REGIONS[rows], MATCHED[rows], weights=WEIGHTS, extent=extent)
    total = box_loss(deltas[rows, LABELS[rows]], wanted, reduction="sum")
    torch.testing.assert_close(losses["bbox"], total / 4)
    assert metrics["num_fg"] == 3


def test_only_the_regions_own_class_learns_a_box():
    """The rule: 4 of 4 * K targets, those of the region's class."""
    logits, deltas = outputs()
    run(logits, deltas)[0]["bbox"].backward()
    assert deltas.grad.any(2).nonzero().tolist() == [[0, 2], [2, 3], [3, 1]]


@pytest.mark.parametrize("classes", [CLASSES, 2])
def test_class_agnostic_boxes_are_in_the_second_column(classes):
    """The rule: class-agnostic regression has two classes of boxes, and class 1 is the one in use."""
    deltas = outputs(2)[1]
    labels = LABELS.clamp(max=classes - 1)
    run(outputs()[0][:, :classes], deltas, labels)[0]["bbox"].backward()
    assert deltas.grad.any(2).nonzero().tolist() == [[0, 1], [2, 1], [3, 1]]


def test_a_positive_that_overlaps_too_little_learns_its_class_and_no_box():
    """The rule: regression targets are for overlaps from TRAIN.BBOX_THRESH on; divisor and classes stay."""
    logits, deltas = outputs()
    losses, metrics = run(logits, deltas, boxed=torch.tensor([True, True, False, True, True]))
    losses["bbox"].backward()
    assert deltas.grad.any(2).nonzero().tolist() == [[0, 2], [3, 1]] and metrics["num_fg"] == 3
    torch.testing.assert_close(losses["cls"], run(logits, deltas)[0]["cls"])


def test_padding_rows_do_not_learn_whatever_their_label():
    logits, deltas = outputs()
    labels = LABELS.clone()
    labels[4] = 3
    losses, metrics = run(logits, deltas, labels)
    (losses["cls"] + losses["bbox"]).backward()
    assert not logits.grad[4].any() and not deltas.grad[4].any() and metrics["num_fg"] == 3
    for name, value in run(*outputs())[0].items():
        torch.testing.assert_close(losses[name], value)


@pytest.mark.parametrize("valid", [VALID, torch.zeros(5, dtype=torch.bool)], ids=["background", "nothing"])
def test_without_positives_losses_are_finite_and_boxes_do_not_learn(valid):
    logits, deltas = outputs()
    losses, _ = run(logits, deltas, torch.zeros_like(LABELS), valid)
    (losses["cls"] + losses["bbox"]).backward()
    assert losses["cls"].isfinite() and losses["bbox"] == 0 and not deltas.grad.any()
    assert losses["cls"] > 0 or not valid.any()


def test_accuracy_counts_sampled_regions():
    logits = F.one_hot(LABELS, CLASSES).float() * 5
    logits[1] = logits[0]
    assert run(logits, outputs()[1])[1]["accuracy_cls"] == 0.75
