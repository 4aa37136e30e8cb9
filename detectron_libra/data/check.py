# SPDX-License-Identifier: Apache-2.0
"""The check of a data set before the first step: every fault in one pass, grouped, counted, named."""

from __future__ import annotations

import os
from typing import Any

from detectron_libra.data.coco import Dataset, Record, load_coco
from detectron_libra.data.faults import ERROR, Faults, Place
from detectron_libra.data.letters import Letters
from detectron_libra.data.survey import survey


def load_checked(
    name: str, image_dir: str, annotation_file: str, *, extent: float, level: str = "quick", **options: Any
) -> Dataset:
    """survey_coco, whose arguments these are; what is odd is logged, what is wrong raised.

    Raises:
        InputError: one line with everything that was found.
    """
    dataset = survey_coco(name, image_dir, annotation_file, extent=extent, level=level, **options)
    dataset.report()
    return dataset


def survey_coco(
    name: str,
    image_dir: str,
    annotation_file: str,
    *,
    extent: float,
    level: str = "quick",
    workers: int = 0,
    class_names: tuple[str, ...] | None = None,
    need_boxes: bool = False,
    min_area: float = -1,
    file_prefix: str = "",
) -> Dataset:
    """coco.load_coco and look_at_images, so that faults of the JSON and of the images are told together.

    Args:
        level, workers: as in look_at_images; the others as in load_coco.

    Returns:
        Dataset; its ``problems`` hold every fault.

    Raises:
        InputError: the annotation file cannot be read at all.
    """
    dataset = load_coco(
        name,
        image_dir,
        annotation_file,
        extent=extent,
        class_names=class_names,
        need_boxes=need_boxes,
        min_area=min_area,
        file_prefix=file_prefix,
        strict=False,
    )
    return look_at_images(dataset, level=level, workers=workers)


def look_at_images(dataset: Dataset, *, level: str = "quick", workers: int = 0) -> Dataset:
    """Note unreadable images in ``dataset.problems``; when every file is absent, once with the folder.

    Args:
        dataset: from ``load_coco(..., strict=False)``.
        level: ``off`` looks at no image, ``quick`` and ``full`` at every one, see survey.survey.
        workers: processes that read images; 0 reads in this one.

    Returns:
        The same data set.
    """
    if level == "off":
        return dataset
    faults = dataset.problems
    assert faults is not None
    records = [r for r in dataset.records if r.file]  # an entry without file_name is noted already
    missing = [r for r in records if not os.path.lexists(r.file)]
    if missing and len(missing) == len(records):
        what = _why_nothing(dataset.image_dir)
        text = f"{what}: looked for {len(missing)} images, the first {os.path.basename(missing[0].file)}"
        faults.add(ERROR, text, f"image folder {dataset.image_dir}")
        return dataset
    letters = Letters()
    for record in missing:
        text = f"no such image file in {dataset.image_dir}"
        twins = letters.twins(*os.path.split(record.file))
        _note(faults, record, text, f" (the folder has {twins[0]})" if twins else "")
    gone = {r.file for r in missing}
    there = [r for r in records if r.file not in gone]
    found = survey(
        [(r.file, (r.height, r.width)) for r in there], level=level, workers=workers, name=dataset.name
    )
    for record, text in zip(there, found, strict=True):
        if text:
            _note(faults, record, text)
    return dataset


def _why_nothing(folder: str) -> str:
    if not os.path.isdir(folder):
        return "no such folder"
    return "none of its files is there" if os.access(folder, os.X_OK) else "no permission to read its files"


def _note(faults: Faults, record: Record, text: str, hint: str = "") -> None:
    place = Place("images", -1, record.file, record.image_id)
    faults.add(ERROR, text, f"image {record.image_id!r}: {record.file}{hint}", place)
