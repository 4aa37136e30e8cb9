# SPDX-License-Identifier: Apache-2.0
"""Corrections of a COCO file that leave no doubt about what was meant; each is counted and named."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from typing import Any

from detectron_libra.data import images as image_files
from detectron_libra.data.faults import Faults, quoted
from detectron_libra.data.letters import Letters
from detectron_libra.errors import InputError
from detectron_libra.files import native_path

CHANGE = "change"
#: Pixels that a box may leave its image by and still fit it.
SLACK_PX = 1.0
#: Larger numbers are no pixels, and overflow in sums.
LARGEST = 1e300
KEYS_OF_BOXES = ("x", "y", "width", "height")
CROWD = (1, "1", "true", "True")


def categories(content: dict, changes: Faults) -> None:
    """Entries that are there twice, and names that are missing."""
    content["categories"] = _once(content["categories"], "categories", changes)
    for entry in _dicts(content["categories"]):
        if "id" in entry and not isinstance(entry.get("name"), str):
            entry["name"] = str(entry["id"])
            changes.add(CHANGE, "category named by its id", repr(entry["id"]))


def images(content: dict, image_dir: str, changes: Faults) -> None:
    """Entries that are there twice, names of files, and sizes that are not those of the files."""
    content["images"] = _once(content["images"], "images", changes)
    ends = _ends(content["annotations"])
    letters = Letters()
    for entry in _dicts(content["images"]):
        name = entry.get("file_name")
        if not isinstance(name, str) or not name:
            continue
        found = _existing(image_dir, name, letters)
        if found != name:
            entry["file_name"] = found
            changes.add(CHANGE, "file_name as it is on the disk", f"{quoted(name)} -> {quoted(found)}")
        _correct_size(entry, native_path(os.path.join(image_dir, found)), ends, changes)


def annotations(content: dict, changes: Faults) -> None:
    """Ids, kinds of ids, forms of boxes, ``area`` and ``iscrowd``."""
    listed = list(_dicts(content["annotations"]))
    _number(listed, changes)
    for key, part in (("image_id", "images"), ("category_id", "categories")):
        _alike(listed, key, content[part], changes)
    for entry in listed:
        box = _as_numbers(entry.get("bbox"))
        if box is not None:
            changes.add(CHANGE, "bbox written as four numbers", _name(entry))
            entry["bbox"] = box
    _to_pixels(content, listed, changes)
    for entry in listed:
        _complete(entry, changes)


def _dicts(entries: list) -> Iterator[dict]:
    return (entry for entry in entries if isinstance(entry, dict))


def _name(entry: dict) -> str:
    return f"annotation {entry.get('id')!r}"


def _once(entries: list, part: str, changes: Faults) -> list:
    """The entries without those that equal an earlier one of the same id."""
    first: dict[Any, Any] = {}
    kept = []
    for entry in entries:
        ident = entry.get("id") if isinstance(entry, dict) else None
        if (
            isinstance(ident, int | str)
            and first.setdefault(ident, entry) is not entry
            and first[ident] == entry
        ):
            changes.add(CHANGE, f"removed from '{part}': there twice", repr(ident))
        else:
            kept.append(entry)
    return kept


def _existing(folder: str, name: str, letters: Letters) -> str:
    """The name itself, or the one file that it can mean: with slashes, or in other letter case."""
    for candidate in (name, name.replace("\\", "/")):
        if os.path.lexists(native_path(os.path.join(folder, candidate))):
            return candidate
        head, tail = os.path.split(candidate)
        twins = letters.twins(native_path(os.path.join(folder, head)), tail)
        if len(twins) == 1:
            return os.path.join(head, twins[0])
    return name


def _ends(listed: list) -> dict[Any, tuple[float, float]]:
    """Right and lower end of the boxes of each image, in pixels."""
    ends: dict[Any, tuple[float, float]] = {}
    for entry in _dicts(listed):
        box, image = entry.get("bbox"), entry.get("image_id")
        if _is_box(box) and isinstance(image, int | str):
            x, y = ends.get(image, (0.0, 0.0))
            ends[image] = max(x, box[0] + box[2]), max(y, box[1] + box[3])
    return ends


def _correct_size(entry: dict, file: str, ends: dict, changes: Faults) -> None:
    """Width and height of the file where they are missing, or wrong and the boxes fit the file."""
    stated = entry.get("height"), entry.get("width")
    try:
        height, width = image_files.read_size(file)
    except InputError:
        return  # the check says why
    if _fits(file, stated):
        return
    ident = entry.get("id")
    right, lower = ends.get(ident, (0.0, 0.0)) if isinstance(ident, int | str) else (0.0, 0.0)
    if None not in stated and (right > width + SLACK_PX or lower > height + SLACK_PX):
        return  # the boxes are those of another picture
    entry["height"], entry["width"] = height, width
    changes.add(
        CHANGE, "width and height as the file has them", f"{os.path.basename(file)} ({width} x {height})"
    )


def _fits(file: str, stated: tuple[Any, Any]) -> bool:
    """Whether (height, width) as stated is a size of the image."""
    if not all(type(v) in (int, float) and v == v // 1 for v in stated):
        return False
    try:
        image_files.check_size(file, (int(stated[0]), int(stated[1])))
    except InputError:
        return False
    return True


def _number(listed: list[dict], changes: Faults) -> None:
    """An id of its own for every annotation that has none, or that of an earlier one."""
    numbers = [e["id"] for e in listed if isinstance(e.get("id"), int)]
    following = max(numbers, default=0) + 1
    seen: set = set()
    for entry in listed:
        ident = entry.get("id")
        usable = isinstance(ident, int | str) and not isinstance(ident, bool)
        if usable and ident not in seen:
            seen.add(ident)
            continue
        text = (
            "annotation id given anew: it was there twice" if usable else "annotation id given: it had none"
        )
        changes.add(CHANGE, text, f"{ident!r} -> {following}")
        entry["id"] = following
        following += 1


def _alike(listed: list[dict], key: str, targets: list, changes: Faults) -> None:
    """An id that is text where that of its target is a number, or the other way round."""
    known = {e["id"] for e in _dicts(targets) if isinstance(e.get("id"), int | str)}
    for entry in listed:
        value = entry.get(key)
        if isinstance(value, str):
            twin: Any = int(value) if value.isdecimal() else None
        else:
            twin = str(value)
        if isinstance(value, int | str) and value not in known and twin in known:
            entry[key] = twin
            changes.add(CHANGE, f"'{key}' written as the id is", _name(entry))


def _as_numbers(box: Any) -> list[float] | None:
    """A box of texts, or an object of x, y, width and height, as four numbers; None for any other."""
    if isinstance(box, dict) and set(box) == set(KEYS_OF_BOXES):
        box = [box[key] for key in KEYS_OF_BOXES]
    elif not (isinstance(box, list) and any(isinstance(v, str) for v in box)):
        return None
    try:
        numbers = [float(v) for v in box]
    except (TypeError, ValueError, OverflowError):
        return None
    return numbers if len(numbers) == 4 and all(map(math.isfinite, numbers)) else None


def _is_box(box: Any) -> bool:
    return (
        isinstance(box, list)
        and len(box) == 4
        and all(type(v) in (int, float) and abs(v) < LARGEST for v in box)
    )


def _to_pixels(content: dict, listed: list[dict], changes: Faults) -> None:
    """Boxes that are fractions of their images, all of them, as pixels."""
    boxes = [e for e in listed if _is_box(e.get("bbox"))]
    fractions = all(max(e["bbox"][0] + e["bbox"][2], e["bbox"][1] + e["bbox"][3]) <= 1 + 1e-6 for e in boxes)
    sizes = {
        e["id"]: (e["width"], e["height"])
        for e in _dicts(content["images"])
        if all(isinstance(e.get(k), int) for k in ("width", "height")) and isinstance(e.get("id"), int | str)
    }
    if not fractions or not any(min(e["bbox"][2:]) > 0 for e in boxes):
        return
    for entry in boxes:
        image = entry.get("image_id")
        size = sizes.get(image) if isinstance(image, int | str) else None
        if size and max(size) > 2:
            entry["bbox"] = [v * s for v, s in zip(entry["bbox"], (*size, *size), strict=True)]
            entry.pop("area", None)
            changes.add(CHANGE, "bbox in pixels: it was in fractions of the image", _name(entry))


def _complete(entry: dict, changes: Faults) -> None:
    """``iscrowd`` as 0 or 1 and ``area`` as a number, which pycocotools wants."""
    crowd = int(entry.get("iscrowd") in CROWD)
    if entry.get("iscrowd") is not crowd:
        entry["iscrowd"] = crowd
        changes.add(CHANGE, "'iscrowd' written as 0 or 1", _name(entry))
    area = entry.get("area")
    good = isinstance(area, int | float) and not isinstance(area, bool) and 0 <= area < math.inf
    if not good and _is_box(entry.get("bbox")):
        entry["area"] = max(entry["bbox"][2], 0) * max(entry["bbox"][3], 0)
        changes.add(CHANGE, "'area' is that of the box", _name(entry))
