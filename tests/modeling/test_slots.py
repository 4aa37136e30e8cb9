# SPDX-License-Identifier: Apache-2.0
"""What goes into a slot reads no value of the device: a step never waits for a count."""

import pytest
import torch

from detectron_libra.modeling.atss import ATSS
from detectron_libra.modeling.class_losses import CrossEntropyLoss
from detectron_libra.modeling.fast_rcnn_loss import fast_rcnn_losses
from detectron_libra.modeling.giou import GIoULoss
from detectron_libra.modeling.matching import labelled
from detectron_libra.modeling.seesaw import SeesawLoss
from detectron_libra.modeling.slots import DenseOutputs
from detectron_libra.structures import Targets

CLASSES = 3


def dense_step():
    """Assignment, loss of boxes and gradient: two images with four padded boxes, two levels, three anchors per cell."""
    maps, per_cell = [(8, 8), (4, 4)], 3
    deltas = [torch.rand(2, per_cell * 4, h, w, requires_grad=True) for h, w in maps]
    outputs = DenseOutputs([], deltas, [torch.rand(h * w * per_cell, 4) for h, w in maps])
    classes = torch.ones(2, 4, dtype=torch.int64)
    targets = Targets(torch.rand(2, 4, 4), classes, classes > 1)
    match = labelled(ATSS(9, 0.0, crowd_threshold=0.5)(outputs, targets), targets)
    GIoULoss(clip_shrinking=True).on_matches(
        deltas,
        outputs.all_anchors,
        targets.boxes,
        positive=match.labels > 0,
        index=match.index,
        extent=0.0,
        normalizer=match.foreground,
    ).backward()


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
    "dense": dense_step,
    "seesaw": lambda: second_stage_step(lambda: SeesawLoss(num_classes=CLASSES)),
    "weighted": lambda: second_stage_step(lambda: CrossEntropyLoss(class_weight=torch.ones(CLASSES))),
}


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_no_step_needs_a_value_that_is_on_the_device(step):
    """Tensors without values: whatever asks for one, or for a shape that depends on one, raises."""
    with torch.device("meta"):
        step()


def test_tensors_without_values_raise_where_one_is_asked_for():
    with torch.device("meta"):
        values = torch.rand(3)
    for ask in (lambda: values.sum().item(), values.nonzero, lambda: values[values > 0.5]):
        with pytest.raises((RuntimeError, NotImplementedError)):
            ask()
