# SPDX-License-Identifier: Apache-2.0
"""COCO's twelve numbers of boxes, as pycocotools computes them, from arrays in memory."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from pycocotools.cocoeval import COCOeval

from ..structures import Detections
from . import fast, pycoco
from .arrays import Flat, Id, class_keys
from .coco_boxes import FoundBoxes, TrueBoxes, found_boxes, true_boxes

#: The six numbers of a COCO box table, in pycocotools' and Detectron's order.
METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")
#: The other six: average recall of 1, 10 and 100 detections per image and class, and of 100 by area.
RECALLS = ("AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
DETECTIONS_PER_IMAGE = pycoco.LIMITS[-1]
#: Places of .5 and .75 among the thresholds .50:.05:.95.
IOU_50, IOU_75 = 0, 5

log = logging.getLogger(__name__)


def evaluate_coco(
    dataset: Any, detections: Mapping[Id, Detections], *, extent: float, flat: Flat | None = None
) -> dict:
    """COCO's numbers over IoU .50:.05:.95, 100 detections per image, as pycocotools computes them on the annotation
    file.

    Ground truth is what the JSON file holds: zero-size boxes count as objects that nobody finds, crowds
    ignore what they match. Left out are annotations that cannot be read (no four finite numbers, negative
    size, unknown image or category). A data set without a file on disk is evaluated against its records.

    Args:
        dataset: with ``annotation_file``, ``records``, ``class_names`` and ``category_ids``.
        detections: by image id; an image without an entry has no detections.
        extent: pixels added to ``x2 - x1`` to get a width.
        flat: both as arrays, where somebody has them already.

    Returns:
        ``METRICS`` and ``RECALLS`` as fractions and ``per_class``, AP by class key; None where there is no object
        to find.

    Raises:
        InputError: the annotation file cannot be read any more.
    """
    flat = flat or Flat(dataset, detections)
    names = class_keys(dataset)
    truth, found, images = coco_boxes(flat, extent=extent)
    return numbers(fast.accumulate(truth, found, images, range(1, len(names) + 1)), names)


def evaluate_arrays(truth: TrueBoxes, found: FoundBoxes) -> dict:
    """COCO's numbers of boxes that lie in memory, whoever detected them.

    Images and classes are the numbers that occur: those without a box would change none of the results.

    Args:
        truth: true boxes, crowds among them; ``TrueBoxes.of`` makes them of anything array-like.
        found: detections; ``FoundBoxes.of`` likewise.

    Returns:
        As :func:`evaluate_coco`; ``per_class`` by the number of the class.

    Example:
        >>> truth = TrueBoxes.of([1, 1], [[0, 0, 30, 30], [9, 9, 40, 40]], [5, 7])
        >>> found = FoundBoxes.of([1], [[0, 0, 30, 30]], [5], [0.9])
        >>> round(evaluate_arrays(truth, found)["AP50"], 9)
        0.5
    """
    images, truth_images, found_images = _numbered(truth.images, found.images)
    classes, truth_classes, found_classes = _numbered(truth.classes, found.classes)
    accumulated = fast.accumulate(
        replace(truth, images=truth_images, classes=truth_classes),
        replace(found, images=found_images, classes=found_classes),
        range(1, len(images) + 1),
        range(1, len(classes) + 1),
    )
    return numbers(accumulated, classes.tolist())


def numbers(accumulated: pycoco.Accumulated, names: Sequence[Hashable]) -> dict:
    """The twelve numbers and ``per_class``, AP by name.

    Args:
        accumulated: of a data set.
        names: of its classes, in their order.
    """
    precision, recall = accumulated
    best = precision[..., -1]
    every = best[..., 0]
    values = [every, every[IOU_50], every[IOU_75], *(best[..., k] for k in range(1, best.shape[-1]))]
    values += [recall[..., 0, k] for k in range(len(pycoco.LIMITS))]
    values += [recall[..., k, -1] for k in range(1, recall.shape[-2])]
    result: dict = dict(zip((*METRICS, *RECALLS), map(_mean, values), strict=True))
    result["per_class"] = {name: _mean(every[:, :, k]) for k, name in enumerate(names)}
    return result


def coco_boxes(flat: Flat, *, extent: float) -> tuple[TrueBoxes, FoundBoxes, range]:
    """True boxes and detections in COCO's form, and the numbers that the images get, 1..N in order of their ids.

    Args:
        flat: the data set and its detections as arrays.

    Raises:
        As :func:`evaluate_coco`.
    """
    stated, found = true_boxes(flat, extent), found_boxes(flat.given, extent)
    dataset, truth = flat.dataset, stated.boxes
    if len(truth.images) < stated.annotations:
        log.warning(
            "%s: evaluation leaves out %d of %d annotations: not readable",
            dataset.annotation_file,
            stated.annotations - len(truth.images),
            stated.annotations,
        )
    if not len(found.scores):
        log.warning("%s: no detections at all, so AP is 0", dataset.name)
    if truth.crowd.all():
        log.warning("%s: no box to find in the ground truth, so AP cannot be computed", dataset.name)
    return truth, found, range(1, len(flat.ids) + 1)


def run_coco(flat: Flat, *, extent: float) -> COCOeval:
    """pycocotools' own evaluation, done: of classes 1..C-1 and images 1..N in ascending order of id.

    Args, Raises:
        As :func:`coco_boxes`.
    """
    truth, found, images = coco_boxes(flat, extent=extent)
    return pycoco.run(truth, found, images, range(1, len(flat.dataset.class_names) + 1))


def _numbered(*columns: np.ndarray) -> tuple[np.ndarray, ...]:
    """The numbers that occur, ascending; then every column with 1, 2, ... in their place.

    pycocotools counts detections by number of image, and takes 0 for none.
    """
    known = np.unique(np.concatenate(columns))
    return known, *(np.searchsorted(known, column) + 1 for column in columns)


def _mean(values: np.ndarray) -> float | None:
    """Mean of what is known; None where nothing is."""
    known = values[values > -1]
    return float(known.mean()) if known.size else None
