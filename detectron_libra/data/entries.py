# SPDX-License-Identifier: Apache-2.0
"""Images and categories of a COCO file; faulty entries are noted by id and stop nothing."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from detectron_libra.data import images as image_files
from detectron_libra.data.faults import ERROR, NOTE, Faults, Place, quoted
from detectron_libra.errors import InputError
from detectron_libra.files import native_path

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
    class_of: dict[Any, int] = {}
    for k, entry in enumerate(listed):
        ident = ident_of(entry, "id")
        if ident is None:
            faults.add(
                ERROR, "no usable 'id' (a number or a text)", f"categories[{k}]", Place("categories", k)
            )
            continue
        if ident in class_of:
            faults.add(ERROR, "duplicate category id; give each category its own", f"category {ident!r}")
        if not isinstance(entry.get("name"), str):
            faults.add(ERROR, "no 'name' that is a text", f"category {ident!r}")
        names.append(str(entry.get("name")))
        ids.append(ident)
        class_of[ident] = len(ids)
    for name, count in Counter(names).items():
        if count > 1:
            faults.add(NOTE, "several categories have one name; they stay different classes", repr(name))
    if expected is not None and tuple(names) != tuple(expected) and not faults.error_lines():
        lists = f"here {_short(names)}, in the training set {_short(expected)}"
        faults.add(ERROR, f"differ from the training set's in name or order: {lists}", "categories")
    return Categories(tuple(names), tuple(ids), class_of)


def read_images(listed: list, image_dir: str, prefix: str, faults: Faults) -> Images:
    """Images sorted by id; a size that is not stated is read from the file's header."""
    found: dict[Any, tuple[str, tuple[int, int]]] = {}
    sources: dict[Any, str] = {}
    for k, entry in enumerate(listed):
        ident = ident_of(entry, "id")
        if ident is None:
            name = quoted(entry.get("file_name") if isinstance(entry, dict) else entry)
            text = "no usable 'id' (a number or a text)"
            faults.add(ERROR, text, f"images[{k}] ({name})", Place("images", k))
            continue
        stated = entry.get("file_name")
        file_name = stated if isinstance(stated, str) else ""
        place = Place("images", k, file_name, ident)
        if ident in found:
            text = "duplicate image id; its boxes could belong to either"
            faults.add(ERROR, text, f"image {ident!r}: {file_name}", place)
            continue
        if not file_name:
            faults.add(ERROR, "no 'file_name'", f"image {ident!r}", place)
        file = native_path(os.path.join(image_dir, prefix + file_name)) if file_name else ""
        found[ident] = file, _size(entry, place, file, faults)
        sources[ident] = _source(entry, place, faults)
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


def _size(entry: dict, place: Place, file: str, faults: Faults) -> tuple[int, int]:
    """(height, width) in pixels, of the file where the entry states none or a faulty one; (1, 1) without both."""
    stated: tuple[Any, Any] = (entry.get("height"), entry.get("width"))
    if all(type(v) in (int, float) and 1 <= v < LARGEST_SIDE and v == v // 1 for v in stated):
        return int(stated[0]), int(stated[1])
    shown = f"image {place.image_id!r} ({place.file}): width {quoted(stated[1])}, height {quoted(stated[0])}"
    if None not in stated:
        faults.add(ERROR, "want whole numbers of pixels", shown, place)
    if not file:
        return 1, 1
    try:
        found = image_files.read_size(file)
        if None in stated and any(v not in (None, of_file) for v, of_file in zip(stated, found, strict=True)):
            text = "one is missing, and the other is not that of the file"
            faults.add(ERROR, text, f"{shown}, the file has {found[1]} x {found[0]}", place)
        return found
    except InputError as e:
        if None in stated:
            text = "no 'width' and 'height', and the file does not tell"
            faults.add(ERROR, text, f"image {place.image_id!r}: {e}", place)
        return 1, 1


def _source(entry: dict, place: Place, faults: Faults) -> str:
    """Where an image comes from (a stock photograph, a phone, ...), as its entry says; no field of COCO's own."""
    stated = entry.get("source")
    if stated is None or isinstance(stated, str):
        return stated or ""
    faults.add(NOTE, "'source' is no text and is left out", f"image {place.image_id!r}", place)
    return ""


def ident_of(entry: Any, key: str) -> int | str | None:
    """An id as int or str (1.0 is 1); None when there is none."""
    value = entry.get(key) if isinstance(entry, dict) else None
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if type(value) in (int, str) else None


def look_up(table: dict[Any, int], key: Any) -> int | None:
    """The value of an id; ``true`` is none, although Python takes it for 1."""
    return table.get(key) if type(key) in (int, float, str) else None


def _short(names: Any) -> str:
    shown = ", ".join(names[:10])
    return f"[{shown}{', ...' if len(names) > 10 else ''}] ({len(names)})"
