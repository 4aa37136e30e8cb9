# SPDX-License-Identifier: Apache-2.0
"""Average recall of proposals: which share of the objects they cover, whatever the class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..structures import Detections
from .arrays import Flat, Id, numpy_of
from .coco_boxes import true_boxes

#: IoU from which an object counts as covered; recall is averaged over them.
THRESHOLDS = np.arange(0.5, 0.95 + 1e-5, 0.05)
#: Letter in the name of a result -> smallest and largest area of the objects that count, in square pixels.
AREAS = {"": (0.0, 1e10), "s": (0.0, 32.0**2), "m": (32.0**2, 96.0**2), "l": (96.0**2, 1e10)}
#: Best proposals of an image that are looked at.
LIMITS = (100, 1000)
NAMES = tuple(f"AR{letter}@{limit}" for limit in LIMITS for letter in AREAS)


def evaluate_recall(
    dataset: Any, proposals: Mapping[Id, Detections], *, extent: float, per_class: bool = False
) -> dict[str, float | None]:
    """Average recall over IoU 0.50:0.05:0.95, of 100 and of 1000 proposals an image.

    In each image the object that is covered best takes its proposal, then the one covered best by what is left,
    until objects or proposals have run out. Crowds do not count.

    Args:
        dataset: with ``annotation_file``, ``records``, ``class_names`` and ``category_ids``.
        proposals: by image id, best first; an image without an entry has none.
        extent: pixels added to ``x2 - x1`` to get a width.
        per_class: the mean over the classes of the recall of their objects (TEST.CLASS_SPECIFIC_AR).

    Returns:
        ``AR@100``, ``ARs@100`` (area under 32^2 pixels), ``ARm@100``, ``ARl@100`` (over 96^2), and the same at 1000, as
        fractions; None where there is no such object.

    Source: Detectron's datasets/json_dataset_evaluator.py (evaluate_box_proposals).
    """
    objects = _objects_by_image(dataset, extent)
    result: dict[str, float | None] = {}
    for limit in LIMITS:
        images = [(*rows, _overlaps(proposals.get(i), rows[0], limit, extent)) for i, rows in objects.items()]
        for letter, (low, high) in AREAS.items():
            covered, classes = [], []
            for _, area, kind, overlaps in images:
                counted = (area >= low) & (area <= high)
                covered.append(best_covered(overlaps[:, counted]))
                classes.append(kind[counted])
            result[f"AR{letter}@{limit}"] = _average_recall(
                np.concatenate([np.zeros(0), *covered]), np.concatenate([np.zeros(0), *classes]), per_class
            )
    return result


def best_covered(overlaps: np.ndarray) -> np.ndarray:
    """IoU with which each object is covered when no proposal covers two.

    Args:
        overlaps: (P, G) IoU.

    Returns:
        (G,) IoU; 0 for an object that gets no proposal.
    """
    left, best = overlaps.copy(), np.zeros(overlaps.shape[1])
    for _ in range(min(left.shape)):
        proposal, found = np.unravel_index(left.argmax(), left.shape)
        best[found] = left[proposal, found]
        left[proposal], left[:, found] = -1, -1
    return best


def _average_recall(covered: np.ndarray, classes: np.ndarray, per_class: bool) -> float | None:
    if not len(covered):
        return None
    groups = [covered[classes == kind] for kind in np.unique(classes)] if per_class else [covered]
    return float(np.mean([(group[:, None] >= THRESHOLDS).mean() for group in groups]))


def _objects_by_image(dataset: Any, extent: float) -> dict[Id, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Boxes (G, 4) x1 y1 x2 y2, areas (G,) and classes (G,) of every image, crowds left out."""
    flat = Flat(dataset, {})
    truth = true_boxes(flat, extent).boxes
    truth = truth.where(~truth.crowd & (truth.boxes[:, 2:] > 0).all(1))
    far = truth.boxes[:, :2] + truth.boxes[:, 2:] - extent
    corners = np.concatenate([truth.boxes[:, :2], far], axis=1)
    order = np.argsort(truth.images, kind="stable")
    parts = np.split(order, np.searchsorted(truth.images[order], np.arange(2, len(flat.ids) + 1)))
    return {
        i: (corners[rows], truth.areas[rows], truth.classes[rows])
        for i, rows in zip(flat.ids, parts, strict=False)
    }


def _overlaps(found: Detections | None, objects: np.ndarray, limit: int, extent: float) -> np.ndarray:
    """(P, G) IoU of the best ``limit`` proposals with the objects of an image."""
    boxes = np.zeros((0, 4)) if found is None else numpy_of(found.boxes, np.float64).reshape(-1, 4)[:limit]
    corner = np.maximum(boxes[:, None, :2], objects[:, :2])
    side = np.clip(np.minimum(boxes[:, None, 2:], objects[:, 2:]) - corner + extent, 0, None)
    shared = side.prod(-1)
    one, other = ((b[:, 2:] - b[:, :2] + extent).prod(-1) for b in (boxes, objects))
    return shared / np.maximum(one[:, None] + other - shared, 1e-12)
