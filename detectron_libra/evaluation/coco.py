# SPDX-License-Identifier: Apache-2.0
"""COCO average precision of boxes, as pycocotools computes it, on ground truth built in memory.

pycocotools wants numeric, unique annotation ids (0 counts as "no match"), and ``iscrowd`` and ``area`` on
every annotation. Files in the wild lack them, so images, classes and annotations are numbered anew here.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ..errors import InputError
from ..structures import Detections
from . import fast
from .arrays import Id, class_keys, numpy_of, records_by_id

#: The six numbers of a COCO box table, in pycocotools' and Detectron's order.
METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")
DETECTIONS_PER_IMAGE = 100
#: Places of .5 and .75 among the thresholds .50:.05:.95.
IOU_50, IOU_75 = 0, 5
#: What files write for a crowd; anything else is an object, as it is for training.
CROWD = (1, "1", "true", "True")

log = logging.getLogger(__name__)


def evaluate_coco(dataset: Any, detections: Mapping[Id, Detections], *, extent: float) -> dict:
    """COCO AP over IoU .50:.05:.95, 100 detections per image, as pycocotools computes it on the annotation
    file.

    Ground truth is what the JSON file holds: zero-size boxes count as objects that nobody finds, crowds
    ignore what they match. Left out are annotations that cannot be read (no four finite numbers, negative
    size, unknown image or category). A data set without a file on disk is evaluated against its records.

    Args:
        dataset: with ``annotation_file``, ``records``, ``class_names`` and ``category_ids``.
        detections: by image id; an image without an entry has no detections.
        extent: pixels added to ``x2 - x1`` to get a width.

    Returns:
        ``AP``, ``AP50``, ``AP75``, ``APs``, ``APm``, ``APl`` as fractions and ``per_class``, AP by class key;
        None where there is no object to find.

    Raises:
        InputError: the annotation file cannot be read any more.
    """
    names = class_keys(dataset)
    truth, found, images = coco_boxes(dataset, detections, extent=extent)
    classes = range(1, len(names) + 1)
    # (IoU thresholds, recalls, classes, areas, detections per image); -1 where nothing is to be found.
    precision = fast.precision(truth, found, images, classes, reference=_precision)[..., -1]
    every, (at_50, at_75) = precision[..., 0], (precision[k, ..., 0] for k in (IOU_50, IOU_75))
    by_area = [precision[..., k] for k in range(1, precision.shape[-1])]
    values = (_mean(p) for p in (every, at_50, at_75, *by_area))
    result: dict = dict(zip(METRICS, values, strict=True))
    result["per_class"] = {name: _mean(every[:, :, k]) for k, name in enumerate(names)}
    return result


def coco_boxes(
    dataset: Any, detections: Mapping[Id, Detections], *, extent: float
) -> tuple[list[dict], list[dict], range]:
    """True boxes and detections as COCO dicts, and the numbers that the images get, 1..N in order of their ids.

    Args, Raises:
        As :func:`evaluate_coco`.
    """
    images = {record.image_id: number for number, record in enumerate(records_by_id(dataset), start=1)}
    truth, found = ground_truth(dataset, images, extent), _found(detections, images, extent)
    if not found:
        log.warning("%s: no detections at all, so AP is 0", dataset.name)
    if all(box["iscrowd"] for box in truth):
        log.warning("%s: no box to find in the ground truth, so AP cannot be computed", dataset.name)
    return truth, found, range(1, len(images) + 1)


def run_coco(dataset: Any, detections: Mapping[Id, Detections], *, extent: float) -> COCOeval:
    """pycocotools' own evaluation, done: of classes 1..C-1 and images 1..N in ascending order of id.

    Args, Raises:
        As :func:`evaluate_coco`.
    """
    truth, found, images = coco_boxes(dataset, detections, extent=extent)
    return _run(truth, found, images, range(1, len(dataset.class_names) + 1))


def to_coco_results(dataset: Any, detections: Mapping[Id, Detections], *, extent: float) -> list[dict]:
    """Detections as a COCO results file holds them, image by image in ascending order of id.

    Args:
        dataset: with ``records`` and ``category_ids``.
        detections: by image id.
        extent: pixels added to ``x2 - x1`` to get a width.

    Returns:
        Dicts of ``image_id`` and ``category_id`` (the JSON file's own ids), ``bbox`` (x, y, width, height in
        pixels) and ``score``; within an image best first, of equal scores the lower class first.
    """
    ids = [record.image_id for record in records_by_id(dataset)]
    return [
        {"image_id": i, "category_id": dataset.category_ids[number - 1], "bbox": box, "score": score}
        for i in ids
        for number, box, score in sorted(_rows(detections.get(i), extent), key=lambda row: (-row[2], row[0]))
    ]


def _precision(
    truth: list[dict], found: list[dict], image_ids: Sequence[int], class_ids: Sequence[int]
) -> np.ndarray:
    return _run(truth, found, image_ids, class_ids).eval["precision"]


def _run(
    truth: list[dict], found: list[dict], image_ids: Sequence[int], class_ids: Sequence[int]
) -> COCOeval:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        evaluation = COCOeval(_coco(truth, image_ids, class_ids), _coco(found, image_ids, class_ids), "bbox")
        evaluation.params.maxDets = [1, 10, DETECTIONS_PER_IMAGE]
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    for line in printed.getvalue().splitlines():
        log.debug("pycocotools: %s", line.strip())
    return evaluation


def _coco(boxes: list[dict], image_ids: Sequence[int], class_ids: Sequence[int]) -> COCO:
    coco = COCO()
    coco.dataset = {
        "images": [{"id": i} for i in image_ids],
        "categories": [{"id": i} for i in class_ids],
        "annotations": [{**box, "id": number} for number, box in enumerate(boxes, start=1)],
    }
    coco.createIndex()
    return coco


def ground_truth(dataset: Any, images: Mapping[Id, int], extent: float) -> list[dict]:
    """Annotations of the file of a data set, or else of its records, as COCO dicts.

    Args:
        dataset: see ``evaluate_coco``.
        images: image id -> the number it gets.
        extent: pixels added to ``x2 - x1`` to get a width.

    Returns:
        Dicts of ``image_id`` (the number), ``category_id`` (1..C-1), ``bbox`` (x, y, width, height in pixels),
        ``area`` (as stated, else of the box, in square pixels) and ``iscrowd``.

    Raises:
        InputError: the annotation file cannot be read any more.
    """
    file = dataset.annotation_file
    if not file or not Path(file).is_file():
        return list(_truth_of_records(dataset, images, extent))
    try:
        annotations = json.loads(Path(file).read_text(encoding="utf-8-sig")).get("annotations") or []
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"{file}: cannot be read for evaluation: {error}; check the file") from error
    classes = {number: k for k, number in enumerate(dataset.category_ids, start=1)}
    read = [_annotation(entry, images, classes) for entry in annotations]
    kept = [box for box in read if box is not None]
    if len(kept) < len(read):
        log.warning(
            "%s: evaluation leaves out %d of %d annotations: not readable",
            file,
            len(read) - len(kept),
            len(read),
        )
    return kept


def _annotation(entry: Any, images: Mapping[Id, int], classes: Mapping[Id, int]) -> dict | None:
    try:
        image, category = images[entry["image_id"]], classes[entry["category_id"]]
        x, y, w, h = (float(value) for value in entry["bbox"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    if not all(map(math.isfinite, (x, y, w, h))) or w < 0 or h < 0:
        return None
    area = entry.get("area")
    usable = isinstance(area, int | float) and not isinstance(area, bool) and 0 <= area < math.inf
    crowd = int(entry.get("iscrowd") in CROWD)
    return _box(image, category, [x, y, w, h], area=area if usable else w * h, crowd=crowd)


def _truth_of_records(dataset: Any, images: Mapping[Id, int], extent: float) -> Iterator[dict]:
    for record in dataset.records:
        boxes = _xywh(record.boxes, extent)
        classes, crowd = numpy_of(record.classes, np.int64), numpy_of(record.crowd, np.int64)
        for box, number, flag in zip(boxes.tolist(), classes.tolist(), crowd.tolist(), strict=True):
            yield _box(images[record.image_id], number, box, area=box[2] * box[3], crowd=flag)


def _found(detections: Mapping[Id, Detections], images: Mapping[Id, int], extent: float) -> list[dict]:
    return [
        {**_box(number, k, box, area=box[2] * box[3], crowd=0), "score": score}
        for image_id, number in images.items()
        for k, box, score in _rows(detections.get(image_id), extent)
    ]


def _rows(found: Detections | None, extent: float) -> Iterator[tuple[int, list[float], float]]:
    """Class, (x, y, width, height) and score of every detection of an image."""
    if found is None:
        return iter(())
    boxes, scores = _xywh(found.boxes, extent), numpy_of(found.scores, np.float64)
    return zip(numpy_of(found.classes, np.int64).tolist(), boxes.tolist(), scores.tolist(), strict=True)


def _xywh(boxes: Any, extent: float) -> np.ndarray:
    boxes = numpy_of(boxes, np.float64).reshape(-1, 4)
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2] + extent], axis=1)


def _box(image: int, category: int, bbox: list[float], *, area: float, crowd: int) -> dict:
    return {"image_id": image, "category_id": category, "bbox": bbox, "area": area, "iscrowd": crowd}


def _mean(precision: np.ndarray) -> float | None:
    """Mean of what is known; None where nothing is."""
    known = precision[precision > -1]
    return float(known.mean()) if known.size else None
