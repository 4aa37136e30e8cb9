# SPDX-License-Identifier: Apache-2.0
"""Boxes of a whole data set as flat arrays: evaluation then needs no loop over images or boxes.

Letters: N images, K detections and G true boxes of all images together, C classes including background.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from ..structures import Detections

#: Ids of images and categories: whatever the JSON file holds.
Id = int | str
#: Attributes of records that are packed already, see data.coco.Records.
PACKED = ("ids", "starts", "boxes", "classes", "crowd")


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


def image_ids(dataset: Any) -> list[Id]:
    """Ids of the records in ascending order, without cutting packed records into images."""
    ids = getattr(dataset.records, "ids", None)
    return sorted_ids(list(dict.fromkeys([r.image_id for r in dataset.records] if ids is None else ids)))


def class_keys(dataset: Any) -> tuple[str, ...]:
    """One key per real class, (C-1,): its name, with the category id where two classes share a name."""
    count = Counter(dataset.class_names)
    pairs = zip(dataset.class_names, dataset.category_ids, strict=True)
    return tuple(name if count[name] == 1 else f"{name} ({number})" for name, number in pairs)


def flat_truth(records: Sequence[Any]) -> Truth:
    """True boxes of all records, in the order of the records."""
    return Truth(
        image=_image_index([len(r.classes) for r in records]),
        boxes=_joined([r.boxes for r in records], (4,), np.float64),
        classes=_joined([r.classes for r in records], (), np.int64),
        crowd=_joined([r.crowd for r in records], (), bool),
    )


def flat_detections(ids: Sequence[Id], detections: Mapping[Id, Detections]) -> Found:
    """Detections of the images ``ids``, in the order given.

    An image without an entry in ``detections`` has none; entries of other images are left out.
    """
    parts = [(number, detections[i]) for number, i in enumerate(ids) if i in detections]
    parts = [(number, found) for number, found in parts if len(found)]
    numbers = np.array([number for number, _ in parts], np.int64)
    return Found(
        image=np.repeat(numbers, np.array([len(found) for _, found in parts], np.int64)),
        boxes=_joined([found.boxes for _, found in parts], (4,), np.float64),
        classes=_joined([found.classes for _, found in parts], (), np.int64),
        scores=_joined([found.scores for _, found in parts], (), np.float64),
    )


def _truth(dataset: Any, ids: list[Id]) -> Truth:
    packed = dataset.records
    if not all(hasattr(packed, name) for name in PACKED) or list(packed.ids) != ids:
        return flat_truth(records_by_id(dataset))
    return Truth(
        image=_image_index(np.diff(numpy_of(packed.starts, np.int64))),
        boxes=numpy_of(packed.boxes, np.float64).reshape(-1, 4),
        classes=numpy_of(packed.classes, np.int64),
        crowd=numpy_of(packed.crowd, bool),
    )


def _image_index(counts: Any) -> np.ndarray:
    return np.repeat(np.arange(len(counts)), np.asarray(counts, dtype=np.int64))


def _joined(parts: Sequence[Any], shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """(K, *shape): parts one after another; tensors are joined as such, since a conversion each takes longer."""
    parts = [part for part in parts if len(part)]
    if not parts:
        return np.zeros((0, *shape), dtype)
    if all(isinstance(part, torch.Tensor) for part in parts):
        return numpy_of(torch.cat([part.detach().cpu() for part in parts]), dtype).reshape(-1, *shape)
    return np.concatenate([numpy_of(part, dtype).reshape(-1, *shape) for part in parts])


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
        scores: (K,) float64 in the order given; float32, descending within an image, where they are ranked.
    """

    image: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray
    scores: np.ndarray

    def ranked(self) -> Found:
        """Best first within an image, of equal scores as given; scores in float32, as detectors give them."""
        scores = self.scores.astype(np.float32)
        order = np.lexsort((-scores, self.image))
        return Found(self.image[order], self.boxes[order], self.classes[order], scores[order])


@dataclass(frozen=True)
class Flat:
    """A data set and its detections as arrays, image by image in ascending order of id, each made once when asked for.

    Attributes:
        dataset: with ``records``; those that are packed already (``data.coco.Records``) are not cut into images.
        detections: by image id; an image without an entry has none, entries of other images are left out.
    """

    dataset: Any
    detections: Mapping[Id, Detections]

    @cached_property
    def ids(self) -> list[Id]:
        """(N,) image ids, ascending: numbers before text."""
        return image_ids(self.dataset)

    @cached_property
    def truth(self) -> Truth:
        """True boxes of the records."""
        return _truth(self.dataset, self.ids)

    @cached_property
    def given(self) -> Found:
        """Detections in the order given."""
        return flat_detections(self.ids, self.detections)

    @cached_property
    def found(self) -> Found:
        """Detections, ranked."""
        return self.given.ranked()
