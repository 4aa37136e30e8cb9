# SPDX-License-Identifier: Apache-2.0
"""Made-up data sets of any size: what a COCO file holds, its index, and detections in its images."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from detectron_libra.data.coco import Dataset, from_content
from detectron_libra.structures import Detections

#: Pixels of every image.
WIDTH, HEIGHT = 640, 480
#: Sides of boxes in pixels; their deviation in detections that are right.
SIDES, MOVED = (8.0, 200.0), 4.0
FILE = "made-up.json"


def content_of(*, images: int, annotations: int, classes: int, outside: bool = False) -> dict[str, Any]:
    """What a COCO file with so many entries holds.

    Args:
        outside: every box lies beside its image, which the check notes one by one.
    """
    rng = np.random.default_rng(0)
    sides = rng.uniform(*SIDES, (annotations, 2))
    corners = rng.random((annotations, 2)) * ([WIDTH, HEIGHT] - sides) + (WIDTH if outside else 0)
    boxes = np.concatenate([corners, sides], 1).round(1).tolist()
    owners = np.sort(rng.integers(1, images + 1, annotations)).tolist()
    kinds = rng.integers(1, classes + 1, annotations).tolist()
    return {
        "images": [
            {"id": k, "file_name": f"{k:012d}.jpg", "width": WIDTH, "height": HEIGHT}
            for k in range(1, images + 1)
        ],
        "categories": [{"id": k, "name": f"class {k}"} for k in range(1, classes + 1)],
        "annotations": [
            {
                "id": k,
                "image_id": owner,
                "category_id": kind,
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": 0,
            }
            for k, (owner, kind, box) in enumerate(zip(owners, kinds, boxes, strict=True), 1)
        ],
    }


def index(content: dict[str, Any]) -> Dataset:
    """The data set of a content, checked; faults are noted in it."""
    return from_content(content, "made_up", "images", FILE, extent=0.0, strict=False)


def detections_in(dataset: Dataset, count: int) -> dict[int | str, Detections]:
    """Detections by image id: ``count`` in all, half of them near true boxes, in as many images as the set has."""
    rng = np.random.default_rng(1)
    number = np.sort(rng.integers(0, len(dataset.records), count))
    starts = np.searchsorted(number, np.arange(len(dataset.records) + 1))
    near = rng.random(count) < 0.5
    sides = rng.uniform(*SIDES, (count, 2))
    corners = rng.random((count, 2)) * ([WIDTH, HEIGHT] - sides)
    boxes = np.concatenate([corners, corners + sides], 1).astype(np.float32)
    classes = rng.integers(1, len(dataset.class_names) + 1, count)
    scores = rng.random(count).astype(np.float32)
    moved = rng.normal(size=(count, 4)) * MOVED
    found: dict[int | str, Detections] = {}
    for k, record in enumerate(dataset.records):
        rows = slice(starts[k], starts[k + 1])
        order = np.argsort(-scores[rows], kind="stable")
        own, kinds = boxes[rows], classes[rows]
        if len(record.classes):
            of = rng.integers(0, len(record.classes), len(own))
            chosen = near[rows]
            own = np.where(chosen[:, None], record.boxes.numpy()[of] + moved[rows], own).astype(np.float32)
            kinds = np.where(chosen, record.classes.numpy()[of], kinds)
        values = (own[order], scores[rows][order], kinds[order])
        found[record.image_id] = Detections(*map(torch.from_numpy, values))
    return found
