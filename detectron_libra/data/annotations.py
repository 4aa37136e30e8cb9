# SPDX-License-Identifier: Apache-2.0
"""The annotations of a COCO file -> arrays; faulty ones are noted with their id and image, and stop nothing."""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from detectron_libra.data.boxes import clean_boxes, look_at_boxes, stated_area
from detectron_libra.data.entries import Categories, Images, ident_of, look_up
from detectron_libra.data.faults import DROP, ERROR, NOTE, Faults, Place, quoted

#: Why an annotation is left out that its authors want to be left out.
IGNORED = "marked 'ignore'"


@dataclass(frozen=True)
class Boxes:
    """Usable annotations, in file order.

    Attributes:
        image: (M,) int64 position of the image.
        boxes: (M, 4) float32 x1 y1 x2 y2 in original pixels; classes: (M,) int64; crowd: (M,) bool.
    """

    image: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray
    crowd: np.ndarray


def read_annotations(
    listed: list, images: Images, categories: Categories, faults: Faults, extent: float, min_area: float
) -> Boxes:
    """The annotations that can be used; see coco.load_coco and boxes.clean_boxes for what is dropped."""
    faults.annotations = len(listed)
    image, classes, rows = array("q"), array("q"), array("q")
    crowd, raw = bytearray(), []

    def tell(level: str, text: str, k: int, detail: str = "") -> None:
        faults.add_box(level, text, _place(listed[k], k, images), detail)

    seen: set = set()
    for k, entry in enumerate(listed):
        ident = ident_of(entry, "id")
        if ident is not None and ident in seen:
            tell(NOTE, "duplicate annotation ids; every one of the annotations is used", k)
        seen.add(ident)
        if not _complete(entry, k, tell):
            continue
        where = look_up(images.index_of, entry["image_id"])
        what = look_up(categories.class_of, entry["category_id"])
        if where is None:
            _unknown_image(entry["image_id"], images, k, tell)
        elif what is None:
            tell(ERROR, "not in 'categories'", k, f": category id {quoted(entry['category_id'])}")
        elif entry.get("ignore") in (1, "1"):
            tell(DROP, IGNORED, k)
        elif stated_area(entry) < min_area:
            tell(DROP, f"an area under {min_area:g} square pixels (TRAIN.GT_MIN_AREA)", k)
        else:
            image.append(where)
            classes.append(what)
            rows.append(k)
            crowd.append(entry.get("iscrowd") in (1, "1", "true", "True"))
            raw.append(entry["bbox"])
    if listed and not image and not faults.of(ERROR) and len(faults.of(DROP)) == 1:
        _no_match(listed[0], images, faults)
    at = np.array(image, dtype=np.int64)
    sizes = np.array(images.sizes, dtype=np.float64).reshape(-1, 2)[at]
    xywh = np.array(raw, dtype=np.float64).reshape(-1, 4)
    look_at_boxes(xywh, sizes, faults)
    boxes, keep = clean_boxes(xywh, sizes, lambda level, text, k, d: tell(level, text, rows[k], d), extent)
    return Boxes(
        at[keep],
        boxes[keep],
        np.array(classes, dtype=np.int64)[keep],
        np.frombuffer(crowd, dtype=np.uint8).astype(bool)[keep],
    )


def _place(entry: Any, index: int, images: Images) -> Place:
    """Where an annotation is: its id, and its image where that is known."""
    image_id = entry.get("image_id") if isinstance(entry, dict) else None
    position = look_up(images.index_of, image_id)
    if position is None:
        return Place("annotations", index, annotation_id=ident_of(entry, "id"))
    file = os.path.basename(images.files[position])
    return Place("annotations", index, file, images.ids[position], ident_of(entry, "id"))


def _complete(entry: Any, k: int, tell: Callable[..., None]) -> bool:
    """Whether an annotation has its keys and four numbers."""
    if not isinstance(entry, dict):
        tell(ERROR, "not an object", k)
        return False
    missing = [key for key in ("image_id", "category_id", "bbox") if key not in entry]
    for key in missing:
        tell(ERROR, f"no '{key}'", k)
    if missing:
        return False
    box = entry["bbox"]
    good = isinstance(box, list) and len(box) == 4 and all(map(_is_number, box))
    if not good:
        tell(ERROR, "want the four numbers [x, y, width, height]", k, f": bbox {quoted(box)}")
    return good


def _is_number(value: Any) -> bool:
    return type(value) is float or (type(value) is int and abs(value) < 1e300)


def _unknown_image(image_id: Any, images: Images, k: int, tell: Callable[..., None]) -> None:
    is_text = isinstance(image_id, str)
    twin: Any = str(image_id)
    if is_text:
        twin = int(image_id) if image_id.isdecimal() else None
    if twin in images.index_of:
        kinds = ("text", "number") if is_text else ("number", "text")
        text = f"the image_id is a {kinds[0]} and the image's id is a {kinds[1]}; write both alike"
        tell(ERROR, text, k, f": image_id {quoted(image_id)}")
    else:
        tell(DROP, "of an image that is not in 'images'", k)


def _no_match(entry: dict, images: Images, faults: Faults) -> None:
    if faults.of(DROP)[0].text.startswith("of an image"):
        text = f"none belongs to an image: image_id {entry['image_id']!r}, image ids like {images.ids[:1]!r}"
        faults.add(ERROR, text, "annotations")
