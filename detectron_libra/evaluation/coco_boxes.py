# SPDX-License-Identifier: Apache-2.0
"""The boxes that COCO's measures compare, as arrays: what an annotation file says, and detections in its form.

Letters: G true boxes and K detections of all images together.
"""

from __future__ import annotations

import functools
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, UsageError
from ..garbage import collector_paused
from .arrays import Flat, Found, Id, Truth, numpy_of

#: What files write for a crowd; anything else is an object, as it is for training.
CROWD = (1, "1", "true", "True")
#: Data sets whose annotation file is not read again while it stays as it is.
FILES_KEPT = 8


@dataclass(frozen=True)
class TrueBoxes:
    """True boxes.

    Attributes:
        images: (G,) int64, number of the image, any whole numbers.
        boxes: (G, 4) float64, x, y, width, height in pixels.
        classes: (G,) int64, any whole numbers.
        areas: (G,) float64, square pixels; what tells small from large, and not always width times height.
        crowd: (G,) bool, regions of many objects: what lies in them counts neither way.
    """

    images: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray

    @classmethod
    def of(cls, images: Any, boxes: Any, classes: Any, areas: Any = None, crowd: Any = None) -> TrueBoxes:
        """Of arrays, tensors or lists.

        Args:
            images, boxes, classes, areas, crowd: see the attributes; areas are those of the boxes where they are not
                given, and without ``crowd`` nothing is one.

        Raises:
            UsageError: a column of another length or form, or with a value that is not
                finite, or not whole where that is due; names it.
        """
        boxes = _column("boxes", boxes, np.float64, None, (4,))
        count = len(boxes)
        areas = boxes[:, 2] * boxes[:, 3] if areas is None else areas
        return cls(
            _column("images", images, np.int64, count),
            boxes,
            _column("classes", classes, np.int64, count),
            _column("areas", areas, np.float64, count),
            _column("crowd", np.zeros(count, bool) if crowd is None else crowd, bool, count),
        )

    def where(self, mask: np.ndarray) -> TrueBoxes:
        """The boxes that ``mask``, (G,) bool, selects."""
        values = (self.images, self.boxes, self.classes, self.areas, self.crowd)
        return TrueBoxes(*(value[mask] for value in values))


@dataclass(frozen=True)
class FoundBoxes:
    """Detections.

    Attributes:
        images: (K,) int64, as in TrueBoxes.
        boxes: (K, 4) float64, x, y, width, height in pixels.
        classes: (K,) int64, as in TrueBoxes.
        scores: (K,) float64; of equal ones within an image the one that comes first is the better one.
    """

    images: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray
    scores: np.ndarray

    @classmethod
    def of(cls, images: Any, boxes: Any, classes: Any, scores: Any) -> FoundBoxes:
        """Of arrays, tensors or lists.

        Args, Raises:
            As ``TrueBoxes.of``.
        """
        boxes = _column("boxes", boxes, np.float64, None, (4,))
        return cls(
            _column("images", images, np.int64, len(boxes)),
            boxes,
            _column("classes", classes, np.int64, len(boxes)),
            _column("scores", scores, np.float64, len(boxes)),
        )

    def where(self, mask: np.ndarray) -> FoundBoxes:
        """The detections that ``mask``, (K,) bool, selects."""
        return FoundBoxes(self.images[mask], self.boxes[mask], self.classes[mask], self.scores[mask])


@dataclass(frozen=True)
class Stated:
    """What an annotation file states: its boxes, and how many annotations it has, readable or not."""

    boxes: TrueBoxes
    annotations: int


def found_boxes(given: Found, extent: float) -> FoundBoxes:
    """Detections in COCO's form, images numbered from 1 in ascending order of id.

    Args:
        given: in the order given.
        extent: pixels added to ``x2 - x1`` to get a width.
    """
    return FoundBoxes(given.image + 1, to_xywh(given.boxes, extent), given.classes, given.scores)


def true_boxes(flat: Flat, extent: float) -> Stated:
    """Annotations of the file of a data set, or else of its records.

    Args:
        flat: of a data set with ``annotation_file`` and ``category_ids``.
        extent: pixels added to ``x2 - x1`` to get a width, for records.

    Returns:
        Boxes with images numbered from 1 in ascending order of id and classes 1..C-1. Left out are annotations that
        cannot be read: no four finite numbers, a negative size, an unknown image or category.

    Raises:
        InputError: the annotation file cannot be read any more.
    """
    dataset, file = flat.dataset, flat.dataset.annotation_file
    if not file or not Path(file).is_file():
        return Stated(_of_records(flat.truth, extent), len(flat.truth.classes))
    try:
        state = os.stat(file)
        age = (state.st_ino, state.st_mtime_ns, state.st_size)
        return _of_file(str(file), age, tuple(flat.ids), tuple(dataset.category_ids))
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"{file}: cannot be read for evaluation: {error}; check the file") from error


def to_xywh(boxes: np.ndarray, extent: float) -> np.ndarray:
    """x, y, width, height of boxes (K, 4) float64, x1 y1 x2 y2."""
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2] + extent], axis=1)


def _column(name: str, values: Any, dtype: Any, count: int | None, shape: tuple[int, ...] = ()) -> np.ndarray:
    try:
        given = numpy_of(values, None)
    except ValueError as e:
        raise UsageError(f"{name}: no array: {e}") from e
    given = given if given.size else np.zeros((0, *shape))
    if given.ndim != 1 + len(shape) or given.shape[1:] != shape or count not in (None, len(given)):
        wanted = ("K" if count is None else count, *shape)
        raise UsageError(f"{name}: shape {given.shape}, want ({', '.join(map(str, wanted))})")
    if given.dtype.kind not in "biuf":
        raise UsageError(f"{name}: type {given.dtype}, want numbers")
    odd = ~np.isfinite(given)
    if dtype is np.int64 and given.dtype.kind == "f":
        odd |= np.floor(given) != given
    if odd.any():
        row = int(np.argwhere(odd)[0][0])
        what = "whole" if dtype is np.int64 else "finite"
        raise UsageError(f"{name}: row {row}: {given[row]} is not {what}")
    return given.astype(dtype)


def _of_records(truth: Truth, extent: float) -> TrueBoxes:
    boxes = to_xywh(truth.boxes, extent)
    return TrueBoxes(truth.image + 1, boxes, truth.classes, boxes[:, 2] * boxes[:, 3], truth.crowd)


@functools.lru_cache(maxsize=FILES_KEPT)
def _of_file(file: str, age: tuple, ids: Sequence[Id], category_ids: Sequence[Id]) -> Stated:
    """Kept, since a training measures the same set again and again; ``age`` tells whether the file has changed."""
    images = {number: k for k, number in enumerate(ids, start=1)}
    classes = {number: k for k, number in enumerate(category_ids, start=1)}
    with collector_paused():
        annotations = json.loads(Path(file).read_text(encoding="utf-8-sig")).get("annotations") or []
        rows = [_annotation(entry, images, classes) for entry in annotations]
    table = np.array([row for row in rows if row is not None], np.float64).reshape(-1, 8)
    image, category, crowd = (table[:, k].astype(np.int64) for k in (0, 1, 7))
    return Stated(TrueBoxes(image, table[:, 2:6], category, table[:, 6], crowd > 0), len(annotations))


def _annotation(entry: Any, images: Mapping[Id, int], classes: Mapping[Id, int]) -> tuple[float, ...] | None:
    """Image, class, x, y, width, height, area, crowd; None where it cannot be read."""
    try:
        image, category = images[entry["image_id"]], classes[entry["category_id"]]
        x, y, w, h = (float(value) for value in entry["bbox"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    if not all(map(math.isfinite, (x, y, w, h))) or w < 0 or h < 0:
        return None
    area = entry.get("area")
    usable = isinstance(area, int | float) and not isinstance(area, bool) and 0 <= area < math.inf
    return image, category, x, y, w, h, float(area) if usable else w * h, entry.get("iscrowd") in CROWD
