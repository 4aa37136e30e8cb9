# SPDX-License-Identifier: Apache-2.0
"""Detections as a COCO results file holds them, written image by image: memory does not grow with the data set."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..structures import Detections
from .arrays import Id, image_ids, numpy_of
from .coco_boxes import to_xywh
from .files import write_whole


def to_coco_results(dataset: Any, detections: Mapping[Id, Detections], *, extent: float) -> list[dict]:
    """Detections as a COCO results file holds them, image by image in ascending order of id.

    Args:
        dataset: with ``records`` and ``category_ids``.
        detections: by image id.
        extent: pixels added to ``x2 - x1`` to get a width.

    Returns:
        Dicts of ``image_id`` and ``category_id`` (the JSON file's own ids), ``bbox`` (x, y, width, height in
        pixels) and ``score``; within an image best first, of equal scores the lower class first.
    """
    return [row for rows in results_by_image(dataset, detections, extent=extent) for row in rows]


def results_by_image(
    dataset: Any, detections: Mapping[Id, Detections], *, extent: float
) -> Iterator[list[dict]]:
    """The rows of ``to_coco_results``, whose arguments these are, one list per image with detections."""
    for i in image_ids(dataset):
        found = detections.get(i)
        if found is None or not len(found):
            continue
        classes, scores = numpy_of(found.classes, np.int64), numpy_of(found.scores, np.float64)
        boxes = to_xywh(numpy_of(found.boxes, np.float64).reshape(-1, 4), extent)
        order = np.lexsort((classes, -scores))
        columns = (column[order].tolist() for column in (classes, boxes, scores))
        yield [
            {"image_id": i, "category_id": dataset.category_ids[number - 1], "bbox": box, "score": score}
            for number, box, score in zip(*columns, strict=True)
        ]


def write_coco_results(
    file: Path | str, dataset: Any, detections: Mapping[Id, Detections], *, extent: float
) -> Path:
    """Writes a COCO results file, atomically: strict JSON (no NaN) on one line, UTF-8.

    Args:
        file: its path; dataset, detections, extent: as in ``to_coco_results``.

    Returns:
        The path of the file.

    Raises:
        RunError: the file cannot be written.
    """

    def write(place: Path) -> None:
        with open(place, "w", encoding="utf-8", errors="backslashreplace", newline="\n") as out:
            between = "["
            for rows in results_by_image(dataset, detections, extent=extent):
                out.write(between + json.dumps(rows, ensure_ascii=False, allow_nan=False)[1:-1])
                between = ", "
            out.write("[]\n" if between == "[" else "]\n")

    return write_whole(file, write)
