# SPDX-License-Identifier: Apache-2.0
"""COCO's measure by pycocotools itself: what every other way of computing it has to equal.

pycocotools wants numeric, unique annotation ids (0 counts as "no match"), and ``iscrowd`` and ``area`` on every
annotation. Files in the wild lack them, so images, classes and annotations come numbered anew.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from .coco_boxes import FoundBoxes, TrueBoxes

#: Best detections of an image and class that are looked at; the last one is that of average precision.
LIMITS = (1, 10, 100)

log = logging.getLogger(__name__)


class Accumulated(NamedTuple):
    """What all of COCO's numbers are means of; -1 where there is nothing to be found.

    Letters: T IoU thresholds .50:.05:.95, R recalls 0:.01:1, C classes, A areas (all, small, medium, large), M LIMITS.

    Attributes:
        precision: (T, R, C, A, M) float64.
        recall: (T, C, A, M) float64.
    """

    precision: np.ndarray
    recall: np.ndarray


def by_pycocotools(
    truth: TrueBoxes, found: FoundBoxes, image_ids: Sequence[int], class_ids: Sequence[int]
) -> Accumulated:
    """Precision and recall of a data set.

    Args:
        truth, found: boxes.
        image_ids, class_ids: all of them, in ascending order.
    """
    values = run(truth, found, image_ids, class_ids).eval
    return Accumulated(values["precision"], values["recall"])


def run(truth: TrueBoxes, found: FoundBoxes, image_ids: Sequence[int], class_ids: Sequence[int]) -> COCOeval:
    """pycocotools' own evaluation, done; arguments as in ``by_pycocotools``.

    What it prints becomes debug lines of the log. Meanwhile nothing else in the process, in whichever thread, can print
    to ``sys.stdout``; log lines can.
    """
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        evaluation = prepare(truth, found, image_ids, class_ids)
        finish(evaluation)
    for line in printed.getvalue().splitlines():
        log.debug("pycocotools: %s", line.strip())
    return evaluation


def prepare(
    truth: TrueBoxes, found: FoundBoxes, image_ids: Sequence[int], class_ids: Sequence[int]
) -> COCOeval:
    """pycocotools' evaluation with all boxes in it, nothing computed."""
    evaluation = COCOeval(
        _coco(_truth_dicts(truth), image_ids, class_ids),
        _coco(_found_dicts(found), image_ids, class_ids),
        "bbox",
    )
    evaluation.params.maxDets = list(LIMITS)
    return evaluation


def finish(evaluation: COCOeval) -> None:
    """Computes it; ``evaluation.stats`` are the twelve numbers."""
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()


def _coco(boxes: list[dict], image_ids: Sequence[int], class_ids: Sequence[int]) -> COCO:
    coco = COCO()
    coco.dataset = {
        "images": [{"id": i} for i in image_ids],
        "categories": [{"id": i} for i in class_ids],
        "annotations": [{**box, "id": number} for number, box in enumerate(boxes, start=1)],
    }
    coco.createIndex()
    return coco


def _truth_dicts(truth: TrueBoxes) -> list[dict]:
    columns = (truth.images, truth.classes, truth.boxes, truth.areas, truth.crowd.astype(np.int64))
    rows = zip(*(column.tolist() for column in columns), strict=True)
    names = ("image_id", "category_id", "bbox", "area", "iscrowd")
    return [dict(zip(names, row, strict=True)) for row in rows]


def _found_dicts(found: FoundBoxes) -> list[dict]:
    areas = found.boxes[:, 2] * found.boxes[:, 3]
    columns = (found.images, found.classes, found.boxes, areas, found.scores)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    names = ("image_id", "category_id", "bbox", "area", "score")
    return [{**dict(zip(names, row, strict=True)), "iscrowd": 0} for row in rows]
