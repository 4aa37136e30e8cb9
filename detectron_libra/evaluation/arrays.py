# SPDX-License-Identifier: Apache-2.0
"""Boxes of a whole data set as flat arrays: evaluation then needs no loop over images or boxes.

Letters: N images, K detections and G true boxes of all images together, C classes including background.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..structures import Detections

#: Ids of images and categories: whatever the JSON file holds.
Id = int | str


def numpy_of(values: Any, dtype: Any) -> np.ndarray:
    """A tensor of any device, an array or a list as a NumPy array of ``dtype``."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().numpy()
    return np.asarray(values, dtype=dtype)


def sorted_ids(ids: Sequence[Id]) -> list[Id]:
    """``ids`` in ascending order, numbers before text."""
    return sorted(ids, key=lambda i: (isinstance(i, str), i))


def records_by_id(dataset: Any) -> list[Any]:
    """The records in ascending order of image id: the order of Detectron's and pycocotools' results."""
    by_id = {record.image_id: record for record in dataset.records}
    return [by_id[i] for i in sorted_ids(list(by_id))]


def class_keys(dataset: Any) -> tuple[str, ...]:
    """One key per real class, (C-1,): its name, with the category id where two classes share a name."""
    count = Counter(dataset.class_names)
    pairs = zip(dataset.class_names, dataset.category_ids, strict=True)
    return tuple(name if count[name] == 1 else f"{name} ({number})" for name, number in pairs)


def flat_truth(records: Sequence[Any]) -> Truth:
    """True boxes of all records, in the order of the records."""
    return Truth(
        image=_image_index([len(r.classes) for r in records]),
        boxes=_joined([numpy_of(r.boxes, np.float64).reshape(-1, 4) for r in records], (0, 4), np.float64),
        classes=_joined([numpy_of(r.classes, np.int64) for r in records], (0,), np.int64),
        crowd=_joined([numpy_of(r.crowd, bool) for r in records], (0,), bool),
    )


def flat_detections(records: Sequence[Any], detections: Mapping[Id, Detections]) -> Found:
    """Detections of all records, best first within an image (ties keep their order).

    An image without an entry in ``detections`` has none; entries of other images are left out.
    """
    parts = []
    for number, record in enumerate(records):
        found = detections.get(record.image_id)
        if found is None or not len(found):
            continue
        scores = numpy_of(found.scores, np.float32)
        order = np.argsort(-scores, kind="stable")
        boxes = numpy_of(found.boxes, np.float64).reshape(-1, 4)
        parts.append(
            (
                np.full(len(scores), number),
                boxes[order],
                numpy_of(found.classes, np.int64)[order],
                scores[order],
            )
        )
    return Found(
        image=_joined([part[0] for part in parts], (0,), np.int64),
        boxes=_joined([part[1] for part in parts], (0, 4), np.float64),
        classes=_joined([part[2] for part in parts], (0,), np.int64),
        scores=_joined([part[3] for part in parts], (0,), np.float32),
    )


def _image_index(counts: Sequence[int]) -> np.ndarray:
    return np.repeat(np.arange(len(counts)), np.asarray(counts, dtype=np.int64))


def _joined(parts: Sequence[np.ndarray], shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    return np.concatenate(parts).astype(dtype) if parts else np.zeros(shape, dtype)


@dataclass(frozen=True)
class Truth:
    """True boxes.

    Attributes:
        image: (G,) int64, index into the records.
        boxes: (G, 4) float64, x1 y1 x2 y2 in pixels of the original image.
        classes: (G,) int64, 1..C-1.
        crowd: (G,) bool, regions of many objects.
    """

    image: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray
    crowd: np.ndarray

    def where(self, mask: np.ndarray) -> Truth:
        """The boxes that ``mask``, (G,) bool, selects."""
        return Truth(self.image[mask], self.boxes[mask], self.classes[mask], self.crowd[mask])


@dataclass(frozen=True)
class Found:
    """Detections.

    Attributes:
        image: (K,) int64, index into the records, ascending.
        boxes: (K, 4) float64, x1 y1 x2 y2 in pixels of the original image.
        classes: (K,) int64, 1..C-1.
        scores: (K,) float32, descending within an image.
    """

    image: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray
    scores: np.ndarray
