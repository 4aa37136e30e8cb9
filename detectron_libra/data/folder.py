# SPDX-License-Identifier: Apache-2.0
"""Images without annotations: one file, or all of a folder."""

import os
from pathlib import Path

import torch

from detectron_libra.data.coco import Dataset, Record
from detectron_libra.data.images import read_image, read_size
from detectron_libra.errors import InputError

#: File endings taken for images.
EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".mpo")


def list_images(place: str, extension: str = "") -> list[str]:
    """The file itself, or the images of a folder in order of their names, sub-folders left out.

    Args:
        extension: only files with this ending, with or without the dot, in any case.

    Raises:
        InputError: no such place, or no image in it.
    """
    path = Path(place)
    if path.is_file():
        return [str(path)]
    if not path.is_dir():
        raise InputError(f"{place}: no such image or folder")
    endings = (f".{extension.lower().lstrip('.')}",) if extension else EXTENSIONS
    files = sorted(str(p) for p in path.iterdir() if p.suffix.lower() in endings and p.is_file())
    if not files:
        raise InputError(f"{place}: no image in this folder; looked for {', '.join(endings)}")
    return files


def readable(files: list[str], *, whole: bool = False) -> tuple[list[str], list[str]]:
    """Files that are images, and what is wrong with the others.

    Args:
        whole: decode every pixel; otherwise read the headers only.
    """
    good, faults = [], []
    for file in files:
        try:
            if whole:
                read_image(file)
            else:
                read_size(file)
            good.append(file)
        except InputError as e:
            faults.append(str(e))
    return good, faults


def without_boxes(image_id: int | str, file: str, height: int, width: int) -> Record:
    """An image about which nothing else is known."""
    nothing = torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.bool)
    return Record(image_id, file, height, width, *nothing)


def as_dataset(files: list[str], class_names: tuple[str, ...]) -> Dataset:
    """Image files as a data set without boxes; the id of an image is its path.

    Raises:
        InputError: a file is no image.
    """
    records = [without_boxes(file, file, *read_size(file)) for file in files]
    folder = os.path.dirname(files[0]) if files else ""
    ids = tuple(range(1, len(class_names) + 1))
    return Dataset("images", folder, "", records, class_names, ids, annotated=False)
