# SPDX-License-Identifier: Apache-2.0
"""What goes into a slot reads no value of the device: a step never waits for a count."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from detectron_libra.geometry import CONTINUOUS
from detectron_libra.modeling.atss import ATSS
from detectron_libra.modeling.class_losses import CrossEntropyLoss, FocalLoss
from detectron_libra.modeling.fast_rcnn_loss import fast_rcnn_losses
from detectron_libra.modeling.giou import GIoULoss
from detectron_libra.modeling.retinanet_loss import RetinaNetRule, retinanet_losses
from detectron_libra.modeling.seesaw import SeesawLoss
from detectron_libra.structures import Targets

CLASSES = 3


def retinanet_step():
    """Losses and gradients of two images with four padded boxes; anchors of two levels, three per cell."""
    maps, anchors_per_cell = [(8, 8), (4, 4)], 3
    logits = [torch.rand(2, anchors_per_cell * CLASSES, h, w, requires_grad=True) for h, w in maps]
    deltas = [torch.rand(2, anchors_per_cell * 4, h, w, requires_grad=True) for h, w in maps]
    anchors = [torch.rand(h * w * anchors_per_cell, 4) for h, w in maps]
    classes = torch.ones(2, 4, dtype=torch.int64)
    targets = Targets(torch.rand(2, 4, 4), classes, classes > 1)
    rule = RetinaNetRule(0.5, 0.4, 0.25, 2.0, CLASSES, False, CONTINUOUS, "continuous", assigner=ATSS(9, 0.0))
    loss = FocalLoss(
        alpha=0.25, gamma=2.0, num_classes=CLASSES, softmax=False, class_weight=torch.ones(CLASSES)
    )
    box_loss = GIoULoss(clip_shrinking=True)
    losses, _ = retinanet_losses(
        logits, deltas, anchors, targets, rule=rule, box_loss=box_loss, class_loss=loss
    )
    (losses["cls"] + losses["bbox"]).backward()


def second_stage_step(class_loss):
    """Losses and gradients of ten regions."""
    logits = torch.rand(10, CLASSES + 1, requires_grad=True)
    deltas = torch.rand(10, CLASSES + 1, 4, requires_grad=True)
    losses, _ = fast_rcnn_losses(
        logits,
        deltas,
        torch.rand(10, 4),
        torch.rand(10, 4),
        torch.ones(10, dtype=torch.int64),
        torch.ones(10, dtype=torch.bool),
        box_weights=(10.0, 10.0, 5.0, 5.0),
        extent=0.0,
        box_loss=GIoULoss(clip_shrinking=True),
        class_loss=class_loss(),
    )
    (losses["cls"] + losses["bbox"]).backward()


STEPS = {
    "retinanet": retinanet_step,
    "seesaw": lambda: second_stage_step(lambda: SeesawLoss(num_classes=CLASSES)),
    "weighted": lambda: second_stage_step(lambda: CrossEntropyLoss(class_weight=torch.ones(CLASSES))),
}


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_no_step_needs_a_value_that_is_on_the_device(step):
    """Tensors without values: whatever asks for one, or for a shape that depends on one, raises."""
    with FakeTensorMode():
        step()


def test_tensors_without_values_raise_where_one_is_asked_for():
    with FakeTensorMode(), pytest.raises(RuntimeError):
        torch.rand(3).sum().item()
