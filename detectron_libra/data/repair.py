# SPDX-License-Identifier: Apache-2.0
"""A faulty COCO file made usable: what can only be meant one way is corrected, the rest of what is wrong is removed."""

from __future__ import annotations

from typing import Any

from detectron_libra.data import mend
from detectron_libra.data.annotations import IGNORED
from detectron_libra.data.check import look_at_images
from detectron_libra.data.coco import Dataset, from_content
from detectron_libra.data.entries import require_keys
from detectron_libra.data.faults import DROP, ERROR, Faults, Kind
from detectron_libra.errors import InputError

#: Removing images leaves annotations without one; more rounds bring nothing new.
ROUNDS = 4


def repair(
    content: dict[str, Any], image_dir: str, source: str, *, extent: float, level: str, workers: int
) -> Faults:
    """Change the content of a COCO file in place until it passes the check.

    Corrected are ids (missing, given twice, text for a number), sizes of images whose boxes fit the file, names of
    files (other letter case, backslashes), boxes as text, as objects or as fractions, ``area`` and ``iscrowd``.
    Removed are images and annotations that are still faulty.

    Args:
        content: of the annotation file.
        image_dir: folder of its images.
        source: the annotation file, for messages.
        extent: of the geometry; level, workers: see check.look_at_images.

    Returns:
        What was changed, by kind.

    Raises:
        InputError: faults are left that can be meant in several ways, or nothing is left.
    """
    require_keys(content, source, need_boxes=False)
    content.setdefault("annotations", [])
    changes = Faults(source)
    mend.categories(content, changes)
    mend.images(content, image_dir, changes)
    mend.annotations(content, changes)
    for _ in range(ROUNDS):
        faults = _survey(content, image_dir, source, extent, level, workers)
        kinds = [k for k in (*faults.of(ERROR), *faults.of(DROP)) if k.text != IGNORED]
        if not kinds:
            return changes
        if any(place is None for kind in kinds for place in kind.places):
            break
        _remove(content, kinds, changes)
        if not (content["images"] and content["categories"]):
            break
        level = "off"  # every image has been looked at; what is left of them is sound
    left = "; ".join(f"{k.names()}: {k.text}" for k in kinds)
    raise InputError(f"{source}: cannot be repaired: {left}; correct it by hand")


def _survey(content: dict, image_dir: str, source: str, extent: float, level: str, workers: int) -> Faults:
    dataset: Dataset = from_content(
        content, "data", image_dir, source, extent=extent, strict=False, keep_all=True
    )
    faults = look_at_images(dataset, level=level, workers=workers).problems
    assert faults is not None
    return faults


def _remove(content: dict, kinds: list[Kind], changes: Faults) -> None:
    """Take the entries with faults out of their lists."""
    for kind in kinds:
        for place, name in zip(kind.places, kind.first, strict=True):
            shown = str(place) if place.part == "annotations" else name
            changes.add(mend.CHANGE, f"removed from '{place.part}': {kind.text}", shown, place)
    places = [place for kind in kinds for place in kind.places]
    ids = {place.image_id for place in places if place.part == "images" and place.image_id is not None}
    for part in ("images", "annotations", "categories"):
        rows = {place.index for place in places if place.part == part}
        gone = ids if part == "images" else set()
        content[part] = [e for k, e in enumerate(content[part]) if k not in rows and not _has_id(e, gone)]


def _has_id(entry: Any, ids: set) -> bool:
    ident = entry.get("id") if isinstance(entry, dict) else None
    return isinstance(ident, int | float | str) and ident in ids
