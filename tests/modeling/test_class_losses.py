# SPDX-License-Identifier: Apache-2.0
"""Weights of classes in both classification losses: whose terms they multiply, and what they leave alone."""

import pytest
import torch
from torch.nn import functional as F

from detectron_libra.modeling.class_losses import CrossEntropyLoss, FocalLoss
from detectron_libra.modeling.layout import cat_levels
from detectron_libra.modeling.losses import SmoothL1Loss
from detectron_libra.modeling.retinanet_loss import retinanet_losses
from detectron_libra.modeling.slots import RegionLesson
from tests.modeling.scenes import targets
from tests.modeling.test_retinanet_loss import CLASSES, OBJECTS, match, outputs, rule

WEIGHT = torch.tensor([0.5, 2.0, 3.0])
LABELS = torch.tensor([2, 0, 3, 1, 0, 2])
VALID = torch.tensor([True, True, True, True, False, False])


def lesson(logits, labels=LABELS, valid=VALID):
    """Regions as the second stage has them; boxes play no part."""
    nothing = torch.zeros(len(labels), 4)
    count = valid.sum().clamp(min=1).float()
    return RegionLesson(logits, nothing[:, None], nothing, nothing, labels, valid, count)


def region_logits():
    torch.manual_seed(7)
    return torch.randn(6, 4, requires_grad=True)


def dense_class_loss(found, raw, r, weight):
    loss = FocalLoss(alpha=0.25, gamma=2.0, num_classes=CLASSES, softmax=r.softmax, class_weight=weight)
    losses, _ = retinanet_losses(*raw, found, rule=r, box_loss=SmoothL1Loss(beta=0.11), class_loss=loss)
    return losses["cls"]


def test_a_region_counts_as_often_as_its_class_weighs_and_background_once():
    """Divided by the number of regions all the same: weights move the balance, and their mean is 1."""
    logits = region_logits()
    found = CrossEntropyLoss(class_weight=WEIGHT)(lesson(logits))
    factor = torch.tensor([2.0, 1.0, 3.0, 0.5])
    log_p = logits.log_softmax(1)[torch.arange(4), LABELS[:4]]
    torch.testing.assert_close(found, -(factor * log_p).sum() / 4)
    found.backward()
    expected = factor[:, None] * (logits[:4].softmax(1) - F.one_hot(LABELS[:4], 4)) / 4
    torch.testing.assert_close(logits.grad, torch.cat([expected, torch.zeros(2, 4)]))


def test_equal_weights_are_the_plain_cross_entropy():
    logits = region_logits()
    plain = CrossEntropyLoss()(lesson(logits))
    torch.testing.assert_close(plain, F.cross_entropy(logits[:4], LABELS[:4]))
    torch.testing.assert_close(CrossEntropyLoss(class_weight=torch.ones(3))(lesson(logits)), plain)


def test_a_class_weighs_in_its_column_of_the_focal_loss():
    """Sigmoids: positives and negatives of a class alike, each column summed by itself."""
    found, r, raw = targets(OBJECTS, OBJECTS[:1]), rule(), outputs(2)
    m = match(found, raw[2], r)
    logits = cat_levels(raw[0], CLASSES)[m.labels >= 0]
    positive = m.labels[m.labels >= 0][:, None] == torch.arange(1, CLASSES + 1)
    p = logits.sigmoid()
    terms = torch.where(positive, -0.25 * (1 - p) ** 2 * p.log(), -0.75 * p**2 * (1 - p).log())
    value = dense_class_loss(found, raw, r, WEIGHT)
    torch.testing.assert_close(value, (terms.sum(0) * WEIGHT).sum() / m.foreground)
    value.backward()
    weighted = cat_levels([x.grad for x in raw[0]], CLASSES)
    plain = outputs(2)
    dense_class_loss(found, plain, r, None).backward()
    torch.testing.assert_close(weighted, cat_levels([x.grad for x in plain[0]], CLASSES) * WEIGHT)


def test_a_class_weighs_in_its_anchors_of_the_softmax():
    found, r = targets(OBJECTS), rule(softmax=True)
    weighted, plain = outputs(softmax=True), outputs(softmax=True)
    labels = match(found, plain[2], r).labels
    for raw, weight in ((weighted, WEIGHT), (plain, None)):
        dense_class_loss(found, raw, r, weight).backward()
    factor = torch.cat([torch.ones(1), WEIGHT])[labels.clamp(min=0)][..., None]
    grads = [cat_levels([x.grad for x in raw[0]], CLASSES + 1) for raw in (weighted, plain)]
    torch.testing.assert_close(grads[0], grads[1] * factor)


@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["plain", "weighted"])
def test_weights_are_saved_where_there_are_any(weight):
    """A run without them has the state that it always had."""
    focal = FocalLoss(alpha=0.25, gamma=2.0, num_classes=CLASSES, softmax=False, class_weight=weight)
    for loss in (focal, CrossEntropyLoss(class_weight=weight)):
        assert list(loss.state_dict()) == (["class_weight"] if weight is not None else [])
        assert not list(loss.parameters())
