# SPDX-License-Identifier: Apache-2.0
"""Pictures with predicted and true boxes."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from ..structures import Detections
from .arrays import Id, numpy_of, records_by_id
from .boxes import overlap
from .canvas import Canvas, colour_of
from .files import write_whole

#: Pictures are enlarged until their longer side has this many pixels: labels need room.
LONG_SIDE_PX = 800
#: A true box counts as found by a shown box of its class at this IoU; those not found are labelled.
FOUND_IOU = 0.5
#: Formats other than PNG by file ending.
FORMATS = {".jpg": "JPEG", ".pdf": "PDF"}


def draw(
    image: Tensor,
    detections: Detections,
    truth: tuple[Any, Any] | None,
    class_names: Sequence[str],
    *,
    threshold: float,
    extent: float = 0.0,
    long_side: int = LONG_SIDE_PX,
) -> Image.Image:
    """Predicted boxes in the colour of their class with name and score; true boxes dashed in white.

    A true box without a shown prediction of its class at IoU >= .5 is labelled with its name. Small images
    are enlarged. With ``truth`` a line below the image explains the two styles.

    Args:
        image: (3, H, W) uint8, RGB.
        detections: in pixels of ``image``.
        truth: boxes (G, 4) in pixels of ``image`` and classes (G,), or None.
        class_names: (C-1,), of the classes 1..C-1.
        threshold: boxes below this score are not drawn.
        extent: pixels added to ``x2 - x1`` to get a width.
        long_side: pixels that the longer side is enlarged to.

    Returns:
        An RGB picture.
    """
    picture = Image.fromarray(np.ascontiguousarray(numpy_of(image, np.uint8).transpose(1, 2, 0)))
    factor = max(1.0, long_side / max(picture.size))
    if factor > 1:
        size = [max(1, round(side * factor)) for side in picture.size]
        picture = picture.resize((size[0], size[1]), Image.Resampling.BICUBIC)
    canvas = Canvas(picture)
    boxes, classes, scores = _shown(detections, threshold)
    far_edge = np.array([0, 0, extent, extent])
    frames = (boxes + far_edge) * factor
    names = dict(enumerate(class_names, start=1))
    for box, number in zip(frames[::-1], classes[::-1], strict=True):
        canvas.box(box, colour_of(number))
    if truth is not None:
        true_boxes, true_classes = numpy_of(truth[0], np.float64).reshape(-1, 4), numpy_of(truth[1], np.int64)
        missed = _missed(true_boxes, true_classes, boxes, classes, extent)
        for box, number, label in zip((true_boxes + far_edge) * factor, true_classes, missed, strict=True):
            canvas.dashed_box(box)
            if label:
                canvas.label(box, f"missed: {names[int(number)]}", None)
    for box, number, score in zip(frames, classes, scores, strict=True):
        canvas.label(box, f"{names[int(number)]} {_two_digits(score)}", colour_of(number))
    if truth is None:
        return canvas.picture
    return canvas.with_legend(f"{len(boxes)} predicted (score >= {threshold:.2f})", f"{len(true_boxes)} true")


def write_pictures(
    dataset: Any,
    detections: Mapping[Id, Detections],
    folder: Path | str,
    *,
    count: int,
    threshold: float,
    read_image: Callable[..., Tensor],
    extent: float = 0.0,
) -> list[Path]:
    """Draws ``count`` images of a data set, evenly spread over it, into ``folder`` as ``<file name>.png``.

    Crowd regions are not drawn.

    Args:
        dataset: with ``records`` and ``class_names``.
        detections: by image id.
        folder: made where it is missing.
        count: how many pictures at most.
        threshold: boxes below this score are not drawn.
        read_image: called as ``read_image(path, size=(height, width))`` with the record's size in pixels;
            returns (3, H, W) uint8 RGB.
        extent: pixels added to ``x2 - x1`` to get a width.

    Returns:
        The files written.

    Raises:
        RunError: a picture cannot be written.
    """
    records = records_by_id(dataset)
    nothing = Detections(*(np.zeros(shape, np.float32) for shape in ((0, 4), 0, 0)))  # type: ignore[arg-type]
    files: list[Path] = []
    for number in np.unique(np.linspace(0, len(records) - 1, min(count, len(records))).round().astype(int)):
        record = records[number]
        objects = ~numpy_of(record.crowd, bool)
        picture = draw(
            read_image(record.file, size=(record.height, record.width)),
            detections.get(record.image_id, nothing),
            (numpy_of(record.boxes, np.float64)[objects], numpy_of(record.classes, np.int64)[objects]),
            dataset.class_names,
            threshold=threshold,
            extent=extent,
        )
        file = Path(folder) / f"{Path(record.file).name}.png"
        if file in files:  # the same name in two folders
            file = file.with_name(f"{Path(record.file).name}.{len(files)}.png")
        files.append(write_picture(file, picture))
    return files


def write_every_picture(
    dataset: Any,
    detections: Mapping[Id, Detections],
    folder: Path | str,
    *,
    threshold: float,
    read_image: Callable[..., Tensor],
    extent: float = 0.0,
    extension: str = "pdf",
    first: int = 0,
) -> list[Path]:
    """Draws the detections of every image that has one at or above the threshold, without true boxes.

    Args:
        dataset, detections, read_image, extent: as in write_pictures.
        folder: of the pictures ``<place in the data set>_<stem of the file>.<extension>``; made where it is missing.
        threshold: boxes below this score are not drawn.
        extension: png, jpg or pdf.
        first: only the first so many images; 0 takes all.

    Returns:
        The files written.

    Raises:
        InputError: an image cannot be read. RunError: a picture cannot be written.
    """
    records = records_by_id(dataset)
    files: list[Path] = []
    for number, record in enumerate(tqdm(records[: first or None], desc="pictures", delay=1, disable=None)):
        found = detections.get(record.image_id)
        if found is None or not (numpy_of(found.scores, np.float32) >= np.float32(threshold)).any():
            continue
        pixels = read_image(record.file, size=(record.height, record.width))
        picture = draw(pixels, found, None, dataset.class_names, threshold=threshold, extent=extent)
        file = Path(folder) / f"{number}_{Path(record.file).stem}.{extension}"
        files.append(write_picture(file, picture))
    return files


def write_picture(file: Path | str, picture: Image.Image) -> Path:
    """Writes a picture, atomically, as the ending of the file says: .jpg, .pdf, otherwise PNG.

    Raises:
        RunError: the file cannot be written.
    """
    content = io.BytesIO()
    picture.save(content, FORMATS.get(Path(file).suffix, "PNG"))
    return write_whole(file, content.getvalue())


def _shown(detections: Detections, threshold: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    scores = numpy_of(detections.scores, np.float32)
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] >= np.float32(threshold)]
    boxes = numpy_of(detections.boxes, np.float64).reshape(-1, 4)
    return boxes[order], numpy_of(detections.classes, np.int64)[order], scores[order]


def _missed(
    true_boxes: np.ndarray, true_classes: np.ndarray, boxes: np.ndarray, classes: np.ndarray, extent: float
) -> np.ndarray:
    """(G,) bool: no box of the class overlaps the true one enough."""
    t, d = np.nonzero(true_classes[:, None] == classes[None])
    near = overlap(true_boxes[t], boxes[d], extent=extent, of_first=False) >= FOUND_IOU
    missed = np.ones(len(true_classes), bool)
    missed[t[near]] = False
    return missed


def _two_digits(score: float) -> str:
    """Score cut, not rounded, to two digits: nothing below 1 reads as 1.00."""
    return f"{math.floor(score * 100 + 1e-4) / 100:.2f}"
