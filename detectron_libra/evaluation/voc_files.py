# SPDX-License-Identifier: Apache-2.0
"""The files of PASCAL VOC's competition 4, a list of detections per class, and Detectron's curves beside them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..structures import Detections
from .arrays import Flat, Id, class_keys, records_by_id
from .files import write_whole
from .results import pickled
from .voc import voc_curves


def write_voc_files(
    dataset: Any, detections: Mapping[Id, Detections], folder: Path | str, *, extent: float
) -> list[Path]:
    """Writes ``comp4_det_<split>_<class>.txt`` and ``<class>_pr.pkl`` for every class.

    A line of the text is the image's name, the score, and left, top, right and bottom of the box in pixels counted
    from 1. Scores have six digits where Detectron writes three, since rounding makes equals that are ranked by chance.
    The pickle holds ``rec`` and ``prec``, an entry per detection that counts, and ``ap``.

    Args:
        dataset: with ``records``, ``class_names``, ``category_ids`` and ``voc``.
        detections: by image id.
        folder: made where it is missing.
        extent: pixels added to ``x2 - x1`` to get a width.

    Returns:
        The files written.

    Raises:
        RunError: a file cannot be written.

    Source:
        The PASCAL VOC development kit; Detectron's datasets/voc_dataset_evaluator.py.
    """
    records = records_by_id(dataset)
    found = Flat(dataset, detections).found
    stems = [Path(record.file).stem for record in records]
    corners = found.boxes + np.array([1, 1, extent, extent])  # the last pixel inside, also for the kit
    curves = voc_curves(dataset, detections, extent=extent)
    files = []
    for number, name in enumerate(class_keys(dataset), start=1):
        rows = np.flatnonzero(found.classes == number)
        lines = [_line(stems[found.image[k]], found.scores[k], corners[k]) for k in rows]
        part = re.sub(r"[/\0]", "_", name)
        text = Path(folder) / f"comp4_det_{dataset.voc.name}_{part}.txt"
        files.append(write_whole(text, "".join(lines).encode("utf-8", errors="surrogateescape")))
        curve = curves[name]
        recall = np.full(len(curve.right), np.nan) if curve.recall is None else curve.recall
        ap = curve.ap(dataset.voc.eleven_points)
        content = {"rec": recall, "prec": curve.precision, "ap": float("nan") if ap is None else ap}
        files.append(write_whole(Path(folder) / f"{part}_pr.pkl", pickled(content)))
    return files


def _line(name: str, score: float, box: np.ndarray) -> str:
    return f"{name} {score:.6f} {box[0]:.2f} {box[1]:.2f} {box[2]:.2f} {box[3]:.2f}\n"
