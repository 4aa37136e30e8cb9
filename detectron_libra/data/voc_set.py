# SPDX-License-Identifier: Apache-2.0
"""A data set straight from a PASCAL VOC folder: Annotations, ImageSets/Main and JPEGImages.

Source of the layout and of the class names: the PASCAL VOC development kit.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from detectron_libra.data.coco import Dataset, VocSplit, from_content
from detectron_libra.data.voc import convert
from detectron_libra.errors import InputError

#: The classes of the challenges, in the order of the kit, which is that of the alphabet.
CHALLENGE_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person"),
    *("pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
#: From this year on average precision is the area under the curve.
AREA_SINCE = 2010


def load_voc(
    name: str,
    folder: str,
    split: str,
    *,
    extent: float,
    year: int = 0,
    class_names: tuple[str, ...] | None = None,
    expected: tuple[str, ...] | None = None,
    need_boxes: bool = False,
    min_area: float = -1,
    strict: bool = True,
) -> Dataset:
    """Read a PASCAL VOC data set. ``difficult`` objects are crowds: counted neither as found nor as missed.

    Args:
        name: of the data set, for messages and results.
        folder: holds Annotations, ImageSets and JPEGImages.
        split: name of the list of images, ``folder/ImageSets/Main/<split>.txt``.
        extent: of the geometry, see load_coco.
        year: of the challenge, which chooses the measure; 0 takes it from a folder named ``VOC<year>``, and the
            measure in use since 2010 where that tells nothing.
        class_names: in order; None takes the names in the annotations, sorted.
        expected: the classes of the training set, which this set must have; they are its ``class_names`` too,
            since a split may lack a class.
        need_boxes, min_area, strict: as in load_coco.

    Returns:
        Dataset with ``voc`` set; the id of an image is its place in the list, from 1.

    Raises:
        InputError: a file is missing or is not what the layout says; with ``strict``, or objects are faulty.
    """
    annotations = Path(folder) / "Annotations"
    names = read_split(Path(folder) / "ImageSets" / "Main" / f"{split}.txt")
    content = convert(annotations, names, expected or class_names or (), first_pixel=1)
    if not (expected or class_names):
        content["categories"].sort(key=lambda category: category["name"])
    dataset = from_content(
        content,
        name,
        str(Path(folder) / "JPEGImages"),
        str(annotations),
        extent=extent,
        class_names=expected,
        need_boxes=need_boxes,
        min_area=min_area,
        strict=strict,
    )
    eleven_points = 0 < (year or year_of(folder)) < AREA_SINCE
    return dataclasses.replace(dataset, voc=VocSplit(split, eleven_points))


def read_split(file: Path | str) -> list[str]:
    """Names of images, the first word of every line; the splits by class have a second one.

    Raises:
        InputError: the file cannot be read or names nothing.
    """
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as e:
        raise InputError(f"{file}: no such list of images; check the folder and the name of the split") from e
    except (OSError, UnicodeDecodeError) as e:
        raise InputError(f"{file}: the list of images cannot be read ({e})") from e
    names = [line.split()[0] for line in lines if line.strip()]
    if not names:
        raise InputError(f"{file}: the list of images is empty")
    return names


def year_of(folder: str) -> int:
    """The year in the name of a folder ``VOC2007``; 0 where there is none."""
    found = re.fullmatch(r"VOC(\d{4})", Path(folder).resolve().name)
    return int(found[1]) if found else 0
