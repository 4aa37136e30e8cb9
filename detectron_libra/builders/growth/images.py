# SPDX-License-Identifier: Apache-2.0
"""What depends on the size of images, and on their number in a batch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from detectron_libra.builders.growth.curve import Axis, Work
from detectron_libra.builders.growth.detectors import (
    DETECTORS,
    Scene,
    draw_boxes,
    test_step,
    training_step,
)
from detectron_libra.modeling.necks.non_local import NonLocal
from detectron_libra.ops.nms import nms

#: Sides of images in pixels, and images of a batch; the side of the latter.
SIDES = (64, 128, 192, 256, 384, 512, 768, 1024)
BATCHES, BATCH_SIDE = (1, 2, 4, 8, 16, 32), 64
#: Pixels of a side that a cell of the finest level has in a RetinaNet, where the attention is measured.
CELL = 8
CHANNELS = 32
NMS_THRESHOLD = 0.5


def image_axis() -> Axis:
    """Image size: the work is counted in pixels."""
    areas = tuple(side * side for side in SIDES)
    steps = [Work(name, partial(_step_of_area, step), areas) for name, step in whole_steps()]
    attention = Work(
        "attention on cells of 8 x 8 pixels, forward and backward",
        attention_of_area,
        areas,
        exempt="every cell attends to every cell",
    )
    pairs = Work("NMS of a box per cell, one class", nms_of_area, areas, exempt="boxes are compared in pairs")
    return Axis("image", "pixels", (*steps, attention, pairs))


def batch_axis() -> Axis:
    """Images of a batch."""
    works = [Work(name, partial(_step_of_batch, step), BATCHES) for name, step in whole_steps()]
    return Axis("batch", "images", tuple(works))


def whole_steps() -> list[tuple[str, Callable[[Scene], Callable[[], object]]]]:
    """Name and making of a step of training and of test, of each detector."""
    return [
        (f"{name}, {kind} step", partial(step, keys))
        for name, keys in DETECTORS.items()
        for kind, step in (("training", training_step), ("test", test_step))
    ]


def attention_of_area(pixels: int) -> Callable[[], object]:
    """The balanced pyramid's attention alone."""
    block = NonLocal(CHANNELS)
    cells = round(pixels**0.5) // CELL
    level = torch.randn(1, CHANNELS, cells, cells, generator=torch.Generator().manual_seed(0))
    level.requires_grad_()

    def run() -> torch.Tensor:
        return torch.autograd.grad(block(level).sum(), level)[0]

    return run


def nms_of_area(pixels: int) -> Callable[[], object]:
    """As many boxes of one class as an image has cells."""
    side = round(pixels**0.5)
    count = (side // CELL) ** 2
    random = torch.Generator().manual_seed(0)
    boxes, scores = draw_boxes(count, side, random), torch.rand(count, generator=random)
    classes = torch.ones(count, dtype=torch.int64)
    return lambda: nms(boxes, scores, classes, threshold=NMS_THRESHOLD, extent=0.0, inclusive=False)


def _step_of_area(step: Callable[[Scene], Callable[[], object]], pixels: int) -> Callable[[], object]:
    return step(Scene(side=round(pixels**0.5)))


def _step_of_batch(step: Callable[[Scene], Callable[[], object]], images: int) -> Callable[[], object]:
    return step(Scene(side=BATCH_SIDE, images=images))
