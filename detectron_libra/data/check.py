# SPDX-License-Identifier: Apache-2.0
"""The check of a data set before the first step: every fault in one pass, grouped, counted, named."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from tqdm import tqdm

from detectron_libra.data import images
from detectron_libra.data.coco import Dataset, Record, load_coco
from detectron_libra.data.faults import ERROR, Faults
from detectron_libra.errors import InputError

LEVELS = ("off", "quick", "full")


def load_checked(
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
    """coco.load_coco and check_dataset, so that faults of the JSON and of the images are told together.

    Args:
        level, workers: as in check_dataset; the others as in load_coco.

    Returns:
        Dataset.

    Raises:
        InputError: one line with everything that was found.
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
    check_dataset(dataset, level=level, workers=workers)
    return dataset


def check_dataset(dataset: Dataset, *, level: str = "quick", workers: int = 0) -> Faults:
    """Log what is odd about a data set, raise for what is wrong.

    Args:
        dataset: from ``load_coco(..., strict=False)``.
        level: ``off`` looks at the entries only, ``quick`` at the header of every image too, ``full``
            decodes them.
        workers: threads that read images (decoding releases Python's lock); 0 reads in this one.

    Returns:
        The faults, none of them an error.

    Raises:
        InputError: one line naming files and ids; the log has every kind.
    """
    assert level in LEVELS, level
    faults = dataset.problems or Faults(dataset.annotation_file)
    if level != "off":
        _look_at_images(dataset, faults, level, workers)
    faults.report()
    return faults


def _look_at_images(dataset: Dataset, faults: Faults, level: str, workers: int) -> None:
    """Note unreadable images; when every file is absent, once with the folder."""
    records = [r for r in dataset.records if r.file]  # an entry without file_name is noted already
    missing = [r for r in records if not os.path.lexists(r.file)]
    if missing and len(missing) == len(records):
        what = "none of its files is there" if os.path.isdir(dataset.image_dir) else "no such folder"
        text = f"{what}: looked for {len(missing)} images, the first {os.path.basename(missing[0].file)}"
        faults.add(ERROR, text, f"image folder {dataset.image_dir}")
        return
    for record in missing:
        text = f"no such image file in {dataset.image_dir}"
        faults.add(ERROR, text, f"image {record.image_id!r}: {record.file}{_other_case(record.file)}")
    gone = {r.file for r in missing}
    there = [r for r in records if r.file not in gone]
    for record, text in zip(there, _results(there, level, workers, dataset.name), strict=True):
        if text:
            faults.add(ERROR, text, f"image {record.image_id!r}: {record.file}")


def _results(records: list[Record], level: str, workers: int, name: str) -> Iterator[str]:
    look = partial(_look, level=level)
    bar = partial(tqdm, total=len(records), desc=f"checking {name}", unit="image", delay=1, disable=None)
    if workers < 1:
        yield from bar(map(look, records))
        return
    with ThreadPoolExecutor(workers) as pool:
        yield from bar(pool.map(look, records))


def _look(record: Record, level: str) -> str:
    """What is wrong with one image, empty for nothing."""
    size = (record.height, record.width)
    try:
        if level == "full":
            images.read_image(record.file, size=size)
        else:
            images.check_size(record.file, size)
    except InputError as e:
        return str(e).removeprefix(f"{record.file}: ")
    return ""


def _other_case(file: str) -> str:
    """A hint where the folder has the name in other letters."""
    folder, name = os.path.split(file)
    try:
        twins = [n for n in os.listdir(folder or ".") if n.lower() == name.lower()]
    except (OSError, ValueError):
        return ""
    return f" (the folder has {twins[0]})" if twins else ""
