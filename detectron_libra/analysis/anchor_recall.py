# SPDX-License-Identifier: Apache-2.0
"""The best that anchors can do: which share of the objects has an anchor that overlaps it enough."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from detectron_libra.analysis.inventory import AREAS, Inventory
from detectron_libra.analysis.numbers import mean, share
from detectron_libra.modeling.anchors import AnchorGrid

#: IoU from which an object counts as covered.
THRESHOLDS = (0.4, 0.5, 0.6, 0.7)


def cells_of(grid: AnchorGrid, height: int, width: int, padding: int) -> list[tuple[int, int]]:
    """Cells in y and x of each level for an image of these pixels, whose sides are padded to multiples."""
    padded = [math.ceil(side / padding) * padding for side in (height, width)]
    return [(math.ceil(padded[0] / stride), math.ceil(padded[1] / stride)) for stride in grid.strides]


def best_overlaps(inventory: Inventory, grid: AnchorGrid, padding: int) -> np.ndarray:
    """(M,) float64, largest IoU of each box with an anchor of its image, both in pixels of the resized image.

    Args:
        grid: the anchors.
        padding: sides of a batch are multiples of it, in pixels.
    """
    best = np.zeros(len(inventory.boxes))
    boxes = inventory.boxes * inventory.scales[inventory.image][:, None]
    sizes = np.maximum(np.rint(inventory.sizes * inventory.scales[:, None]), 1).astype(int)
    kinds, kind = np.unique(sizes, axis=0, return_inverse=True)
    of_box = kind.reshape(-1)[inventory.image]
    order = np.argsort(of_box, kind="stable")
    starts = np.searchsorted(of_box[order], np.arange(len(kinds) + 1))
    for size, first, end in zip(kinds.tolist(), starts, starts[1:], strict=False):
        rows, cells = order[first:end], cells_of(grid, *size, padding)
        for base, count, step in zip(grid.bases, cells, grid.steps(cells), strict=True):
            found = nearest_overlap(
                base.numpy().astype(np.float64), boxes[rows], count, step, inventory.extent
            )
            best[rows] = np.maximum(best[rows], found)
    return best


def nearest_overlap(
    base: np.ndarray, boxes: np.ndarray, cells: tuple[int, int], step: tuple[float, float], extent: float
) -> np.ndarray:
    """(M,) largest IoU of each box (M, 4) with a base anchor (A, 4) at any cell.

    Of anchors of one shape the one with the nearest centre overlaps a box most, in x and y alike: what two intervals
    share only shrinks as their centres part. So one cell of each is looked at, not all.

    Args:
        cells, step: number of cells and pixels between them, in y and x.
        extent: pixels added to x2 - x1 to get a width.
    """
    count, stride = np.array(cells[::-1]), np.array(step[::-1], dtype=np.float64)
    centre = (boxes[:, None, :2] + boxes[:, None, 2:]) / 2
    own = (base[:, :2] + base[:, 2:]) / 2
    shift = np.clip(np.rint((centre - own) / stride), 0, count - 1) * stride
    low = np.maximum(boxes[:, None, :2], base[:, :2] + shift)
    high = np.minimum(boxes[:, None, 2:], base[:, 2:] + shift)
    shared = np.maximum(high - low + extent, 0).prod(-1)
    areas = (boxes[:, 2:] - boxes[:, :2] + extent).prod(-1)
    union = areas[:, None] + (base[:, 2:] - base[:, :2] + extent).prod(-1) - shared
    return (shared / union).max(1, initial=0.0)


def recall_tables(inventory: Inventory, best: np.ndarray, positive: float) -> dict[str, Any]:
    """Recall at several IoUs, of all boxes, by size and by class.

    Args:
        best: (M,) from ``best_overlaps``.
        positive: IoU from which an anchor is positive in training; the first column.

    Returns:
        ``positive_iou``, ``images``, ``recall`` at that IoU, and ``all``, ``by_size``, ``by_class`` with recall at each
        IoU, ``mean_best_iou`` and ``boxes``.
    """
    thresholds = sorted({positive, *THRESHOLDS})
    classes = {name: inventory.classes == c for c, name in enumerate(inventory.class_names, 1)}
    return {
        "positive_iou": positive,
        "images": len(inventory.names),
        "recall": share((best >= positive).sum(), len(best)),
        "all": _recalls(best, thresholds),
        "by_size": {name: _recalls(best[inventory.of_size(name)], thresholds) for name in AREAS},
        "by_class": {name: _recalls(best[mask], thresholds) for name, mask in classes.items()},
    }


def _recalls(best: np.ndarray, thresholds: Sequence[float]) -> dict[str, Any]:
    recalls = {f"{t:g}": share((best >= t).sum(), len(best)) for t in thresholds}
    return {"boxes": len(best), "mean_best_iou": mean(best), "recall": recalls}
