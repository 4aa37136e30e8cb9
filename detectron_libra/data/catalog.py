# SPDX-License-Identifier: Apache-2.0
"""Where the files of a named data set lie: names declared in the configuration, then Detectron's.

Source of the names and of the layout: Detectron's datasets/dataset_catalog.py.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from typing import Any

from detectron_libra.errors import UsageError

#: Detectron keeps everything below this folder of its checkout; LIBRA_DATA_DIR points to another place.
DETECTRON_ROOT = "detectron/datasets/data"
_ANNOTATIONS = "coco/annotations"

# name -> (image folder, annotation file) below the data root
DETECTRON_NAMES: dict[str, tuple[str, str]] = {
    "coco_2014_train": ("coco/coco_train2014", f"{_ANNOTATIONS}/instances_train2014.json"),
    "coco_2014_val": ("coco/coco_val2014", f"{_ANNOTATIONS}/instances_val2014.json"),
    "coco_2014_minival": ("coco/coco_val2014", f"{_ANNOTATIONS}/instances_minival2014.json"),
    "coco_2014_valminusminival": ("coco/coco_val2014", f"{_ANNOTATIONS}/instances_valminusminival2014.json"),
    "coco_2015_test": ("coco/coco_test2015", f"{_ANNOTATIONS}/image_info_test2015.json"),
    "coco_2015_test-dev": ("coco/coco_test2015", f"{_ANNOTATIONS}/image_info_test-dev2015.json"),
    "coco_2017_train": ("coco/coco_train2017", f"{_ANNOTATIONS}/instances_train2017.json"),
    "coco_2017_val": ("coco/coco_val2017", f"{_ANNOTATIONS}/instances_val2017.json"),
    "coco_2017_test": ("coco/coco_test2015", f"{_ANNOTATIONS}/image_info_test2017.json"),
    "coco_2017_test-dev": ("coco/coco_test2015", f"{_ANNOTATIONS}/image_info_test-dev2017.json"),
    "coco_stuff_train": ("coco/coco_train2014", f"{_ANNOTATIONS}/coco_stuff_train.json"),
    "coco_stuff_val": ("coco/coco_val2014", f"{_ANNOTATIONS}/coco_stuff_val.json"),
    "keypoints_coco_2014_train": ("coco/coco_train2014", f"{_ANNOTATIONS}/person_keypoints_train2014.json"),
    "keypoints_coco_2014_val": ("coco/coco_val2014", f"{_ANNOTATIONS}/person_keypoints_val2014.json"),
    "keypoints_coco_2014_minival": ("coco/coco_val2014", f"{_ANNOTATIONS}/person_keypoints_minival2014.json"),
    "keypoints_coco_2014_valminusminival": (
        "coco/coco_val2014",
        f"{_ANNOTATIONS}/person_keypoints_valminusminival2014.json",
    ),
    "keypoints_coco_2015_test": ("coco/coco_test2015", f"{_ANNOTATIONS}/image_info_test2015.json"),
    "keypoints_coco_2015_test-dev": ("coco/coco_test2015", f"{_ANNOTATIONS}/image_info_test-dev2015.json"),
}

#: PASCAL VOC: name -> (year, list of images).
VOC_NAMES = {
    f"voc_{year}_{split}": (year, split)
    for year, splits in ((2007, ("train", "val", "test")), (2012, ("train", "val")))
    for split in splits
}
#: Where its folder is looked for below the data root: Detectron's place, then that of the unpacked kit.
VOC_PLACES = ("VOC{0}/VOCdevkit{0}/VOC{0}", "VOCdevkit/VOC{0}")

#: File names that carry a prefix the annotation file does not have, by data set.
FILE_PREFIXES = {"coco_2017_test": "COCO_test2015_", "coco_2017_test-dev": "COCO_test2015_"}


def find(name: str, declared: Mapping[str, Mapping[str, Any]]) -> tuple[str, str]:
    """Image folder and annotation file of a data set.

    Args:
        name: as in TRAIN.DATASETS or TEST.DATASETS.
        declared: the DATASETS key of the configuration: name -> {"IM_DIR": folder, "ANN_FN": file}.

    Returns:
        (image folder, annotation file); neither is opened here.

    Raises:
        UsageError: the name is known nowhere, or its declaration lacks a path.
    """
    if name in declared:
        return _path(name, declared[name], "IM_DIR"), _path(name, declared[name], "ANN_FN")
    if name in DETECTRON_NAMES:
        images, annotations = DETECTRON_NAMES[name]
        root = data_root()
        return os.path.join(root, images), os.path.join(root, annotations)
    known = sorted({*declared, *DETECTRON_NAMES, *VOC_NAMES})
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = (
        f"did you mean {' or '.join(near)}?"
        if near
        else f"declared: {', '.join(sorted(declared)) or 'none'};"
    )
    raise UsageError(
        f"data set {name!r} is unknown: {hint} declare it: DATASETS: {{{name}: {{IM_DIR: ..., ANN_FN: ...}}}}"
    )


def find_voc(name: str, declared: Mapping[str, Mapping[str, Any]]) -> tuple[str, str, int] | None:
    """Folder, list of images and year (0: not known) of a data set in PASCAL VOC's layout.

    Args:
        name, declared: as in find; here a declaration is {"VOC_DIR": folder, "SPLIT": name, "YEAR": year}.

    Returns:
        None where the name is that of another kind of data set.

    Raises:
        UsageError: the declaration lacks a folder or a split.
    """
    entry = declared.get(name, {})
    if "VOC_DIR" in entry:
        return _path(name, entry, "VOC_DIR"), _path(name, entry, "SPLIT"), int(entry.get("YEAR", 0))
    if entry or name not in VOC_NAMES:
        return None
    year, split = VOC_NAMES[name]
    places = [os.path.join(data_root(), place.format(year)) for place in VOC_PLACES]
    return next((p for p in places if os.path.isdir(p)), places[0]), split, year


def data_root() -> str:
    """LIBRA_DATA_DIR where set, else Detectron's folder where it is there, else ``data``."""
    chosen = os.environ.get("LIBRA_DATA_DIR")
    if chosen:
        return os.path.expanduser(chosen)
    return DETECTRON_ROOT if os.path.isdir(DETECTRON_ROOT) else "data"


def _path(name: str, entry: Mapping[str, Any], key: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str) or not value:
        raise UsageError(f"DATASETS.{name}.{key} is {value!r}; give a path")
    return os.path.expanduser(value)
