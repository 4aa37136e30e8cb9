# SPDX-License-Identifier: Apache-2.0
"""What matching gives, image by image: enough to measure any selection of the images without matching again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools.cocoeval import COCOeval

from ..structures import Detections
from .arrays import Flat, Id, class_keys
from .boxes import match_flat
from .coco import DETECTIONS_PER_IMAGE, run_coco
from .concept import image_candidates
from .rates import Candidates

#: pycocotools' ranges of areas, in its order.
AREAS = ("all", "small", "medium", "large")


def tally(
    dataset: Any, detections: Mapping[Id, Detections], *, extent: float, threshold: float, iou: float
) -> Tallies:
    """Matches the detections of a data set, once.

    Args:
        dataset: as for :func:`~detectron_libra.evaluation.results.results_dict`.
        detections: by image id.
        extent: pixels added to ``x2 - x1`` to get a width.
        threshold: score at which a class or a box counts as predicted.
        iou: least IoU of a right box.

    Raises:
        InputError: the annotation file cannot be read any more.
    """
    names, flat = class_keys(dataset), Flat(dataset, detections)
    num_classes = len(names) + 1
    objects = flat.truth.where(~flat.truth.crowd)
    boxes = np.zeros((len(flat.ids), num_classes), np.int64)
    np.add.at(boxes, (objects.image, objects.classes), 1)
    return Tallies(
        images=len(flat.ids),
        class_names=names,
        threshold=threshold,
        ranked=rankings(run_coco(flat, extent=extent)),
        concept=Claims(image_candidates(flat, num_classes=num_classes), np.minimum(boxes, 1)),
        boxes=Claims(match_flat(flat, num_classes, iou=iou, extent=extent).candidates(), boxes),
    )


def rankings(evaluation: COCOeval) -> dict[tuple[int, str], Ranking]:
    """The matches of pycocotools: for each class, 0..C-2, and range of areas."""
    p = evaluation.params
    shape = (len(p.catIds), len(p.areaRng), len(p.imgIds))
    images = np.empty(shape, object)
    images.flat[:] = evaluation.evalImgs
    return {
        (k, area): _ranking(images[k, a], len(p.iouThrs))
        for k in range(shape[0])
        for a, area in enumerate(p.areaRngLbl)
    }


def _ranking(images: np.ndarray, thresholds: int) -> Ranking:
    """Of one class and range of areas; ``images`` holds pycocotools' result of each image, or None."""
    there = [(number, entry) for number, entry in enumerate(images) if entry is not None]
    positives = np.zeros(len(images), np.int64)
    for number, entry in there:
        positives[number] = np.count_nonzero(np.asarray(entry["gtIgnore"]) == 0)
    most = DETECTIONS_PER_IMAGE
    scores = np.concatenate([np.zeros(0), *(entry["dtScores"][:most] for _, entry in there)])
    order = np.argsort(-scores, kind="stable")
    none = np.zeros((thresholds, 0), bool)
    matched = np.concatenate([none, *(entry["dtMatches"][:, :most] > 0 for _, entry in there)], axis=1)
    ignored = np.concatenate([none, *(entry["dtIgnore"][:, :most] > 0 for _, entry in there)], axis=1)
    image = np.repeat([number for number, _ in there], [len(entry["dtScores"][:most]) for _, entry in there])
    matched, ignored = matched[:, order], ignored[:, order]
    return Ranking(image.astype(np.int64)[order], matched & ~ignored, ~ignored, positives)


@dataclass(frozen=True)
class Ranking:
    """Detections of one class and range of areas in all images, best first. Letter: T IoU thresholds.

    Attributes:
        image: (K,) int64, index of the image.
        right: (T, K) bool, takes an object that counts.
        counted: (T, K) bool, right or wrong; the others are ignored.
        positives: (N,) int64, objects to find in each image.
    """

    image: np.ndarray
    right: np.ndarray
    counted: np.ndarray
    positives: np.ndarray


@dataclass(frozen=True)
class Claims:
    """What is claimed of images, or of boxes, and what there was to find.

    Attributes:
        candidates: K of them.
        positives: (N, C) int64, to find in each image of each class; nothing in column 0, the background.
    """

    candidates: Candidates
    positives: np.ndarray


@dataclass(frozen=True)
class Tallies:
    """All matches of a data set.

    Attributes:
        images: N; their order is that of ascending ids.
        class_names: (C-1,) keys of the classes 1..C-1.
        threshold: score at which a candidate counts.
        ranked: by (class from 0, one of AREAS), for average precision.
        concept, boxes: for precision and recall.
    """

    images: int
    class_names: tuple[str, ...]
    threshold: float
    ranked: Mapping[tuple[int, str], Ranking]
    concept: Claims
    boxes: Claims
