# SPDX-License-Identifier: Apache-2.0
"""The best that anchors can do: which share of the objects has an anchor that overlaps it enough."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from detectron_libra.analysis.inventory import AREAS, Inventory
from detectron_libra.analysis.numbers import mean, share
from detectron_libra.modeling.anchors import AnchorGrid
from detectron_libra.ops.match_boxes import match_boxes

#: IoU from which an object counts as covered.
THRESHOLDS = (0.4, 0.5, 0.6, 0.7)
#: Images compared with their anchors; more are thinned out evenly.
MOST_IMAGES = 1000
#: Images compared at a time, which have the same size.
CHUNK = 16

#: From the height and width of a resized image in pixels to all anchors (A, 4) in them.
Anchors = Callable[[int, int], torch.Tensor]


def anchors_of(grid: AnchorGrid, padding: int) -> Anchors:
    """The anchors of one image; ``padding``: sides of a batch are multiples of it, in pixels."""

    def of_image(height: int, width: int) -> torch.Tensor:
        padded = [math.ceil(side / padding) * padding for side in (height, width)]
        cells = [(math.ceil(padded[0] / stride), math.ceil(padded[1] / stride)) for stride in grid.strides]
        return torch.cat(grid(cells, "cpu"))

    return of_image


def thinned(inventory: Inventory) -> Inventory:
    """At most MOST_IMAGES of the images, evenly spread."""
    count = len(inventory.names)
    chosen = np.zeros(count, dtype=bool)
    chosen[np.linspace(0, count - 1, min(count, MOST_IMAGES)).round().astype(int)] = True
    return inventory if chosen.all() else inventory.of_images(chosen)


def best_overlaps(inventory: Inventory, anchors: Anchors) -> np.ndarray:
    """(M,) float32, largest IoU of each box with an anchor, both in pixels of the resized image."""
    best = np.zeros(len(inventory.boxes), dtype=np.float32)
    heights, widths = np.maximum(np.rint(inventory.sizes * inventory.scales[:, None]), 1).astype(int).T
    for size in sorted(set(zip(heights.tolist(), widths.tolist(), strict=True))):
        every = anchors(*size)
        same = np.flatnonzero((heights == size[0]) & (widths == size[1]))
        for rows, boxes in _padded(inventory, same):
            count = len(boxes)
            there = torch.ones(count, len(every), dtype=torch.bool)
            found = match_boxes(
                boxes, every.expand(count, -1, -1), there, extent=inventory.extent
            ).iou.numpy()
            taken = rows >= 0
            best[rows[taken]] = found[taken]
    return best


def _padded(inventory: Inventory, images: np.ndarray) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
    """Rows (n, G) of the boxes of some images, -1 in padding, and their resized boxes (n, G, 4)."""
    order = np.argsort(inventory.image, kind="stable")
    ends = np.cumsum(inventory.per_image)
    for chunk in np.split(images, range(CHUNK, len(images), CHUNK)):
        own = [order[ends[i] - inventory.per_image[i] : ends[i]] for i in chunk]
        rows = np.full((len(chunk), max(1, *map(len, own))), -1)
        for n, listed in enumerate(own):
            rows[n, : len(listed)] = listed
        scales = inventory.scales[chunk][:, None, None]
        boxes = np.where(rows[..., None] >= 0, inventory.boxes[rows] * scales, 0) if len(order) else None
        if boxes is not None:
            yield rows, torch.from_numpy(boxes.astype(np.float32))


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
