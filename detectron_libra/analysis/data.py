# SPDX-License-Identifier: Apache-2.0
"""What a data set holds: how many boxes of which class, size and shape, how crowded, and which look wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from detectron_libra.analysis.inventory import AREAS, Inventory
from detectron_libra.analysis.numbers import histogram, mean, quantiles, share
from detectron_libra.data.coco import Dataset
from detectron_libra.data.faults import DROP, NOTE

#: Edges of the histogram of width / height.
ASPECT_EDGES = tuple(2.0**k for k in (-4, -3, -2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2, 3, 4))
#: Edges of the histogram of boxes per image.
COUNT_EDGES = (0, 1, 2, 3, 5, 9, 17, 33, 65, 1025)
#: IoU with another box from which a box is crowded, and from which one of the two may be there twice.
CROWDED_IOU, TWICE_IOU = 0.3, 0.9
#: Sides in pixels, as the network sees them, below which there is hardly anything to see.
TINY_PX = 4.0
#: Long side / short side above which a box is suspicious; share of its image from which it is.
LONG, WHOLE_IMAGE = 10.0, 0.95
#: Boxes named per kind of suspicion.
NAMED = 5


def describe_boxes(inventory: Inventory) -> dict[str, Any]:
    """The tables of a data set, and the same of every source of its images where they state one.

    Returns:
        ``images``, ``boxes``, ``crowds``, ``images_without_boxes``, ``classes``, ``size``, ``aspect``, ``crowding``
        as plain numbers, lists and dicts; ``by_source`` with the same for each source.
    """
    tables = _tables(inventory)
    tables["by_source"] = {name: _tables(part) for name, part in inventory.by_source().items()}
    return tables


def _tables(inv: Inventory) -> dict[str, Any]:
    images, boxes = len(inv.names), len(inv.boxes)
    empty = int((inv.per_image == 0).sum())
    width, height = inv.sides.T
    return {
        "images": images,
        "boxes": boxes,
        "crowds": int(inv.crowds.sum()),
        "images_without_boxes": {"count": empty, "share": share(empty, images)},
        "classes": class_counts(inv),
        "size": {
            "side_px": quantiles(np.sqrt(inv.areas)),
            "side_px_at_input": quantiles(np.sqrt(inv.areas) * inv.scales[inv.image]),
            **{name: share(inv.of_size(name).sum(), boxes) for name in AREAS},
        },
        "aspect": {
            "width_over_height": quantiles(width / height),
            "histogram": histogram(width / height, ASPECT_EDGES),
        },
        "crowding": {
            "boxes_per_image": quantiles(inv.per_image),
            "mean_boxes_per_image": mean(inv.per_image),
            "histogram": histogram(inv.per_image, COUNT_EDGES),
            "overlapping": share((inv.neighbour_overlap >= CROWDED_IOU).sum(), boxes),
        },
    }


def class_counts(inv: Inventory) -> dict[str, dict[str, Any]]:
    """Boxes, images and share of the boxes of every class, in the order of the classes."""
    counts = {}
    for c, name in enumerate(inv.class_names, 1):
        of_class = inv.classes == c
        counts[name] = {
            "boxes": int(of_class.sum()),
            "images": len(np.unique(inv.image[of_class])),
            "share": share(of_class.sum(), len(inv.classes)),
        }
    return counts


def suspicious_boxes(inventory: Inventory) -> list[dict[str, Any]]:
    """Boxes that are worth a look, by kind: ``kind``, ``count``, and ``examples`` that name image, box and class."""
    inv = inventory
    short, long = np.sort(inv.sides, axis=1).T
    whole = inv.areas / inv.sizes.prod(1)[inv.image]
    kinds = {
        f"a side under {TINY_PX:g} pixels at the input size": short * inv.scales[inv.image] < TINY_PX,
        f"more than {LONG:g} times as long as wide": long > LONG * short,
        f"covers {WHOLE_IMAGE:.0%} of the image or more": whole >= WHOLE_IMAGE,
        f"overlaps another box with IoU {TWICE_IOU:g} or more: annotated twice?": inv.neighbour_overlap
        >= TWICE_IOU,
    }
    return [
        {
            "kind": kind,
            "count": int(mask.sum()),
            "examples": [_name(inv, k) for k in np.flatnonzero(mask)[:NAMED]],
        }
        for kind, mask in kinds.items()
        if mask.any()
    ]


def _name(inv: Inventory, k: int) -> str:
    corners = ", ".join(f"{v:g}" for v in inv.boxes[k].tolist())
    return f"{inv.names[inv.image[k]]}: {inv.class_names[inv.classes[k] - 1]} [{corners}]"


def reading_faults(datasets: Sequence[Dataset]) -> list[dict[str, Any]]:
    """What the reader of the annotations left out or changed, by kind, in the form of ``suspicious_boxes``."""
    return [
        {
            "kind": f"{verb}: {kind.text}",
            "count": kind.count,
            "examples": [f"{d.name}: {n}" for n in kind.first],
        }
        for d in datasets
        if d.problems
        for level, verb in ((DROP, "left out by the reader"), (NOTE, "noted by the reader"))
        for kind in d.problems.of(level)
    ]
