# SPDX-License-Identifier: Apache-2.0
"""The three lists of a COCO file -> arrays; faulty entries are noted by id and stop nothing."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from detectron_libra.data import images as image_files
from detectron_libra.data.boxes import clean_boxes, look_at_boxes, stated_area
from detectron_libra.data.faults import DROP, ERROR, NOTE, Faults
from detectron_libra.errors import InputError

#: Pixels that a side may state, and then some: no image has as many.
LARGEST_SIDE = 2**31


@dataclass(frozen=True)
class Categories:
    """Names and ids in the order of the file; ``class_of[id]`` is 1..C-1."""

    names: tuple[str, ...]
    ids: tuple[int | str, ...]
    class_of: dict[Any, int]


@dataclass(frozen=True)
class Images:
    """Images sorted by id; ``sizes`` are (height, width), ``index_of[id]`` is the position, ``sources`` name their
    origins ("" where an entry has no ``source``)."""

    ids: list[int | str]
    files: list[str]
    sizes: list[tuple[int, int]]
    index_of: dict[Any, int]
    sources: list[str]


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


def require_keys(content: Mapping[str, Any], file: str, need_boxes: bool) -> None:
    """Refuse a file that lacks a list, or has an empty one where that leaves nothing to do.

    Raises:
        InputError: naming the key.
    """
    for key in ("images", "categories", "annotations"):
        optional = key == "annotations" and not need_boxes
        if key not in content:
            if optional:
                continue
            raise InputError(f"{file}: the key '{key}' is missing; is this a COCO instances file?")
        if not isinstance(content[key], list):
            raise InputError(f"{file}: '{key}' is a {type(content[key]).__name__}, not a list")
        if not content[key] and not optional:
            raise InputError(
                f"{file}: '{key}' is empty; there is nothing to {'learn' if need_boxes else 'do'}"
            )


def read_categories(listed: list, faults: Faults, expected: tuple[str, ...] | None) -> Categories:
    """Classes in the order of the list (Detectron's rule), compared with ``expected`` names where given."""
    names: list[str] = []
    ids: list[int | str] = []
    for k, entry in enumerate(listed):
        ident = _ident(entry, "id")
        if ident is None:
            faults.add(ERROR, "no usable 'id' (a number or a text)", f"categories[{k}]")
            continue
        if ident in ids:
            faults.add(ERROR, "duplicate category id; give each category its own", f"category {ident!r}")
        if not isinstance(entry.get("name"), str):
            faults.add(ERROR, "no 'name'", f"category {ident!r}")
        names.append(str(entry.get("name")))
        ids.append(ident)
    for name, count in Counter(names).items():
        if count > 1:
            faults.add(NOTE, "several categories have one name; they stay different classes", repr(name))
    if expected is not None and tuple(names) != tuple(expected) and not faults.error_lines():
        lists = f"here {_short(names)}, in the training set {_short(expected)}"
        faults.add(ERROR, f"differ from the training set's in name or order: {lists}", "categories")
    return Categories(tuple(names), tuple(ids), {ident: c for c, ident in enumerate(ids, 1)})


def read_images(listed: list, image_dir: str, prefix: str, faults: Faults) -> Images:
    """Images sorted by id; a size that is not stated is read from the file's header."""
    found: dict[Any, tuple[str, tuple[int, int]]] = {}
    sources: dict[Any, str] = {}
    for k, entry in enumerate(listed):
        ident = _ident(entry, "id")
        if ident is None:
            faults.add(ERROR, "no usable 'id' (a number or a text)", f"images[{k}]")
            continue
        if ident in found:
            faults.add(ERROR, "duplicate image id; its boxes could belong to either", f"image {ident!r}")
            continue
        file_name = entry.get("file_name")
        if not isinstance(file_name, str) or not file_name:
            faults.add(ERROR, "no 'file_name'", f"image {ident!r}")
            file_name = ""
        file = os.path.join(image_dir, prefix + file_name) if file_name else ""
        found[ident] = file, _size(entry, ident, file, faults)
        sources[ident] = _source(entry, ident, faults)
    if len({isinstance(i, str) for i in found}) > 1:
        faults.add(ERROR, "some are text and some are numbers; use one kind", "image ids")
    ids = sorted(found, key=lambda i: (isinstance(i, str), i))
    files = [found[i][0] for i in ids]
    for file, count in Counter(files).items():
        if count > 1 and file:
            faults.add(NOTE, "several image entries name one file", file)
    return Images(
        ids,
        files,
        [found[i][1] for i in ids],
        {ident: k for k, ident in enumerate(ids)},
        [sources[i] for i in ids],
    )


def read_annotations(
    listed: list, images: Images, categories: Categories, faults: Faults, extent: float, min_area: float
) -> Boxes:
    """The annotations that can be used; see coco.load_coco and boxes.clean_boxes for what is dropped."""
    faults.annotations = len(listed)
    image, classes, crowd, raw, names = [], [], [], [], []
    seen: set = set()
    for k, entry in enumerate(listed):
        ident = _ident(entry, "id")
        name = f"#{k + 1} (no id)" if ident is None else str(ident)
        if ident is not None and ident in seen:
            faults.add(NOTE, "duplicate annotation ids; every one of the annotations is used", name)
        seen.add(ident)
        if not _complete(entry, name, faults):
            continue
        where = _look_up(images.index_of, entry["image_id"])
        what = _look_up(categories.class_of, entry["category_id"])
        if where is None:
            _unknown_image(entry["image_id"], images, faults, name)
        elif what is None:
            faults.add(
                ERROR, "not in 'categories'", f"annotation {name}: category id {entry['category_id']!r}"
            )
        elif entry.get("ignore") in (1, "1"):
            faults.add(DROP, "marked 'ignore'", name)
        elif stated_area(entry) < min_area:
            faults.add(DROP, f"an area under {min_area:g} square pixels (TRAIN.GT_MIN_AREA)", name)
        else:
            image.append(where)
            classes.append(what)
            crowd.append(entry.get("iscrowd") in (1, "1", "true", "True"))
            raw.append(entry["bbox"])
            names.append(name)
    if listed and not image and not faults.of(ERROR) and len(faults.of(DROP)) == 1:
        _no_match(listed[0], images, faults)
    at = np.array(image, dtype=np.int64)
    sizes = np.array(images.sizes, dtype=np.float64).reshape(-1, 2)[at]
    xywh = np.array(raw, dtype=np.float64).reshape(-1, 4)
    look_at_boxes(xywh, sizes, faults)
    boxes, keep = clean_boxes(xywh, sizes, names, faults, extent)
    keep_list = np.flatnonzero(keep)
    return Boxes(
        at[keep_list],
        boxes[keep_list],
        np.array(classes, dtype=np.int64)[keep_list],
        np.array(crowd, dtype=bool)[keep_list],
    )


def _complete(entry: Any, name: str, faults: Faults) -> bool:
    """Whether an annotation has its keys and four numbers."""
    if not isinstance(entry, dict):
        faults.add(ERROR, "not an object", f"annotation {name}")
        return False
    missing = [key for key in ("image_id", "category_id", "bbox") if key not in entry]
    for key in missing:
        faults.add(ERROR, f"no '{key}'", f"annotation {name}")
    if missing:
        return False
    box = entry["bbox"]
    good = isinstance(box, list) and len(box) == 4 and all(map(_is_number, box))
    if not good:
        text = repr(box)
        shown = text if len(text) <= 60 else text[:57] + "..."
        faults.add(ERROR, "want the four numbers [x, y, width, height]", f"annotation {name}: bbox {shown}")
    return good


def _is_number(value: Any) -> bool:
    return type(value) is float or (type(value) is int and abs(value) < 1e300)


def _unknown_image(image_id: Any, images: Images, faults: Faults, name: str) -> None:
    is_text = isinstance(image_id, str)
    twin: Any = str(image_id)
    if is_text:
        twin = int(image_id) if image_id.isdecimal() else None
    if twin in images.index_of:
        kinds = ("text", "number") if is_text else ("number", "text")
        text = f"the image_id is a {kinds[0]} and the image's id is a {kinds[1]}; write both alike"
        faults.add(ERROR, text, f"annotation {name}: image_id {image_id!r}")
    else:
        faults.add(DROP, "of an image that is not in 'images'", name)


def _no_match(entry: dict, images: Images, faults: Faults) -> None:
    if faults.of(DROP)[0].text.startswith("of an image"):
        text = f"none belongs to an image: image_id {entry['image_id']!r}, image ids like {images.ids[:1]!r}"
        faults.add(ERROR, text, "annotations")


def _size(entry: dict, ident: int | str, file: str, faults: Faults) -> tuple[int, int]:
    """(height, width) in pixels; (1, 1) after a fault."""
    stated: tuple[Any, Any] = (entry.get("height"), entry.get("width"))
    if None in stated and not file:
        return 1, 1
    if None in stated:
        try:
            return image_files.read_size(file)
        except InputError as e:
            faults.add(ERROR, "no 'width' and 'height', and the file does not tell", f"image {ident!r}: {e}")
            return 1, 1
    if all(type(v) in (int, float) and 1 <= v < LARGEST_SIDE and v == v // 1 for v in stated):
        return int(stated[0]), int(stated[1])
    shown = f"image {ident!r}: width {stated[1]!r}, height {stated[0]!r}"
    faults.add(ERROR, "want whole numbers of pixels", shown)
    return 1, 1


def _source(entry: dict, ident: int | str, faults: Faults) -> str:
    """Where an image comes from (a stock photograph, a phone, ...), as its entry says; no field of COCO's own."""
    stated = entry.get("source")
    if stated is None or isinstance(stated, str):
        return stated or ""
    faults.add(NOTE, "'source' is no text and is left out", f"image {ident!r}")
    return ""


def _ident(entry: Any, key: str) -> int | str | None:
    """An id as int or str (1.0 is 1); None when there is none."""
    value = entry.get(key) if isinstance(entry, dict) else None
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if type(value) in (int, str) else None


def _look_up(table: dict[Any, int], key: Any) -> int | None:
    return table.get(key) if isinstance(key, (int, float, str)) else None


def _short(names: Any) -> str:
    shown = ", ".join(names[:10])
    return f"[{shown}{', ...' if len(names) > 10 else ''}] ({len(names)})"
