# SPDX-License-Identifier: Apache-2.0
"""What depends on the number of classes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from detectron_libra.builders.growth.curve import OBJECTS, Axis, Work
from detectron_libra.builders.growth.detectors import Scene
from detectron_libra.builders.growth.images import whole_steps
from detectron_libra.builders.growth.sets import content_of, detections_in, index
from detectron_libra.evaluation.results import detections_pickle, results_dict

#: The last one is beyond what data sets have, so that the last decade is work that no cache holds.
CLASSES = (1, 10, 100, 1000, 2000, 4000)
SIDE = 64
IMAGES, ANNOTATIONS, DETECTIONS = 100, 1000, 2000
#: Score and IoU at which boxes are told right from wrong.
THRESHOLD, IOU = 0.5, 0.5


def class_axis() -> Axis:
    """Classes without background."""
    steps = [Work(name, partial(_step, step), CLASSES) for name, step in whole_steps()]
    return Axis(
        "classes",
        "classes",
        (
            *steps,
            Work("evaluation of 2,000 detections", evaluation, CLASSES, memory=OBJECTS),
            Work("detections.pkl of 100 images", pickle, CLASSES, memory=OBJECTS),
            Work("index of the categories", categories, CLASSES, memory=OBJECTS),
        ),
    )


def evaluation(classes: int) -> Callable[[], object]:
    """Everything that is measured of a test."""
    dataset = index(content_of(images=IMAGES, annotations=ANNOTATIONS, classes=classes))
    found = detections_in(dataset, DETECTIONS)
    return lambda: results_dict(dataset, found, extent=0.0, threshold=THRESHOLD, iou=IOU)


def pickle(classes: int) -> Callable[[], object]:
    """The file of detections."""
    dataset = index(content_of(images=IMAGES, annotations=ANNOTATIONS, classes=classes))
    found = detections_in(dataset, DETECTIONS)
    return lambda: detections_pickle(dataset, found, config_text="")


def categories(classes: int) -> Callable[[], object]:
    """A file of little else."""
    content = content_of(images=1, annotations=1, classes=classes)
    return lambda: index(content)


def _step(step: Callable[[Scene], Callable[[], object]], classes: int) -> Callable[[], object]:
    return step(Scene(side=SIDE, classes=classes))
