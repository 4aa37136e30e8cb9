# SPDX-License-Identifier: Apache-2.0
"""PASCAL VOC annotations (one XML per image) as a COCO data set.

Source of the format: the PASCAL VOC development kit; corners are pixels counted from 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from detectron_libra.errors import InputError


def convert(
    annotations: str | Path,
    names: Sequence[str] | None,
    classes: Sequence[str] = (),
    *,
    first_pixel: int | None = None,
) -> dict[str, Any]:
    """The content of a COCO JSON: images, annotations, categories.

    A box becomes [xmin, ymin, xmax - xmin, ymax - ymin], as stored, or, where the first pixel has a number, the
    pixels from corner to corner: [xmin - first, ymin - first, xmax - xmin + 1, ymax - ymin + 1]. ``difficult``
    objects become crowds: VOC, too, counts them neither as found nor as missed.

    Args:
        annotations: folder of the XML files.
        names: stems of the files to take, in this order; None takes all, sorted.
        classes: class names in order; those that are found and not listed follow in order of their first box.
        first_pixel: number that the files give to the first pixel of a row (1 in PASCAL VOC's own, 0 in those of
            many programs); None keeps the numbers of the files.

    Raises:
        InputError: a file is missing, is no XML, or lacks an element.
    """
    folder = Path(annotations)
    files = sorted(folder.glob("*.xml")) if names is None else [folder / f"{name}.xml" for name in names]
    if not files:
        raise InputError(f"{folder}: no .xml file in it")
    ids = {name: i for i, name in enumerate(classes, 1)}
    first, extent = (0, 0) if first_pixel is None else (first_pixel, 1)
    images, boxes = [], []
    for image_id, file in enumerate(files, 1):
        root = _read(file)
        images.append(
            {
                "id": image_id,
                "file_name": _text(root, "filename", file),
                "width": int(_number(root, "size/width", file)),
                "height": int(_number(root, "size/height", file)),
            }
        )
        for entry in root.iter("object"):
            x1, y1, x2, y2 = (_number(entry, f"bndbox/{k}", file) for k in ("xmin", "ymin", "xmax", "ymax"))
            name = _text(entry, "name", file)
            boxes.append(
                {
                    "id": len(boxes) + 1,
                    "image_id": image_id,
                    "category_id": ids.setdefault(name, len(ids) + 1),
                    "bbox": [x1 - first, y1 - first, x2 - x1 + extent, y2 - y1 + extent],
                    "area": (x2 - x1 + extent) * (y2 - y1 + extent),
                    "iscrowd": int(entry.findtext("difficult", "0").strip() == "1"),
                }
            )
    categories = [{"id": i, "name": name} for name, i in ids.items()]
    return {"images": images, "annotations": boxes, "categories": categories}


def _read(file: Path) -> ElementTree.Element:
    try:
        return ElementTree.parse(file).getroot()
    except FileNotFoundError as e:
        raise InputError(f"{file}: no such annotation file") from e
    except (OSError, ElementTree.ParseError) as e:
        raise InputError(f"{file}: cannot be read as XML ({e})") from e


def _text(element: ElementTree.Element, path: str, file: Path) -> str:
    text = element.findtext(path)
    if text is None or not text.strip():
        raise InputError(f"{file}: no <{path}> in <{element.tag}>")
    return text.strip()


def _number(element: ElementTree.Element, path: str, file: Path) -> float:
    text = _text(element, path, file)
    try:
        value = float(text)
    except ValueError as e:
        raise InputError(f"{file}: <{path}> is {text!r}, not a number") from e
    return int(value) if value.is_integer() else value
