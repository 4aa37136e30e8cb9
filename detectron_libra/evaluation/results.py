# SPDX-License-Identifier: Apache-2.0
"""All measurements of a test run: results.json, Detectron's log lines and detections.pkl."""

from __future__ import annotations

import json
import logging
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..structures import Detections
from .arrays import Flat, Id, image_ids, numpy_of
from .boxes import evaluate_boxes
from .coco import METRICS, evaluate_coco
from .concept import evaluate_concept
from .files import write_whole
from .recall import NAMES as RECALLS
from .voc import evaluate_voc

log = logging.getLogger(__name__)

#: No row of a class in an image, (0, 5): one object for all pairs of image and class that have none, which are most.
NO_ROWS = np.zeros((0, 5), np.float32)


def results_dict(
    dataset: Any,
    detections: Mapping[Id, Detections],
    *,
    extent: float,
    threshold: float,
    iou: float,
    voc: bool = True,
) -> dict:
    """Everything that is measured on one data set, which has to be annotated.

    Args:
        dataset: with ``name``, ``annotation_file``, ``records``, ``class_names`` and ``category_ids``.
        detections: by image id.
        extent: pixels added to ``x2 - x1`` to get a width.
        threshold: score at which a class or a box counts as predicted (``TEST.CONCEPT_THRESH``).
        iou: least IoU of a right box (``TEST.BOX_IOU_THRESH``).
        voc: measure a set of PASCAL VOC annotations as PASCAL VOC does, too.

    Returns:
        ``{name: {"box": …, "concept": …, "boxes_at_threshold": …}}`` and, for such a set, ``"voc"``; fractions;
        None where a value cannot be computed. The keys are those of :func:`evaluate_coco`,
        :func:`evaluate_concept`, :func:`evaluate_boxes` and :func:`evaluate_voc`.
    """
    flat = Flat(dataset, detections)
    values = {
        "box": evaluate_coco(dataset, detections, extent=extent, flat=flat),
        "concept": evaluate_concept(dataset, detections, threshold=threshold, flat=flat),
        "boxes_at_threshold": evaluate_boxes(
            dataset, detections, threshold=threshold, iou=iou, extent=extent, flat=flat
        ),
    }
    if voc and dataset.voc is not None:
        values["voc"] = evaluate_voc(dataset, detections, extent=extent)
    return {dataset.name: values}


def write_json(file: Path | str, values: Any) -> Path:
    """Writes strict JSON (no NaN), UTF-8, atomically; a list of results goes on one line, the rest is
    indented.

    Raises:
        RunError: the file cannot be written.
    """
    indent = None if isinstance(values, list) else 2
    text = json.dumps(values, indent=indent, ensure_ascii=False, allow_nan=False)
    return write_whole(file, (text + "\n").encode("utf-8", errors="backslashreplace"))


def write_detections(
    file: Path | str, dataset: Any, detections: Mapping[Id, Detections], *, config_text: str
) -> Path:
    """Writes Detectron's detections.pkl, atomically.

    Raises:
        RunError: the file cannot be written.
    """
    return write_whole(file, detections_pickle(dataset, detections, config_text=config_text))


def detections_pickle(dataset: Any, detections: Mapping[Id, Detections], *, config_text: str) -> bytes:
    """Detections in Detectron's layout, pickled with protocol 2 so that old Python and NumPy read them.

    Args:
        dataset: with ``records`` and ``class_names``.
        detections: by image id.
        config_text: the configuration as YAML, which Detectron's reval merges.

    Returns:
        The pickle of ``all_boxes[class][image]``, (K, 5) float32: x1 y1 x2 y2 score in pixels of the original
        image, best first, images in ascending order of id, ``[]`` for every image of class 0; ``all_segms``
        and ``all_keyps``, empty lists in the same layout; ``cfg``.

    Source:
        Detectron's core/test_engine.py.
    """
    ids = image_ids(dataset)
    num_classes = len(dataset.class_names) + 1
    none: list = []
    boxes = [[none] * len(ids), *([NO_ROWS] * len(ids) for _ in range(1, num_classes))]
    for number, i in enumerate(ids):
        for label, rows in _rows_by_class(detections.get(i)):
            boxes[label][number] = rows
    content = {
        "all_boxes": boxes,
        "all_segms": [[none] * len(ids) for _ in range(num_classes)],
        "all_keyps": [[none] * len(ids) for _ in range(num_classes)],
        "cfg": config_text,
    }
    return pickled(content)


def pickled(content: Any) -> bytes:
    """Texts, numbers, arrays, lists and dicts as a pickle that old Python and NumPy read."""
    return _for_old_readers(content)


def write_proposals(
    file: Path | str, dataset: Any, proposals: Mapping[Id, Detections], *, config_text: str
) -> Path:
    """Writes Detectron's rpn_proposals.pkl, atomically.

    A dict of ``boxes`` ((P, 4) float32 per image, x1 y1 x2 y2 in pixels of the original image, best first), ``scores``
    ((P,) float32), ``ids`` of the images in ascending order, and ``cfg``.

    Args:
        dataset: with ``records``.
        proposals: by image id.
        config_text: the configuration as YAML.

    Raises:
        RunError: the file cannot be written.

    Source:
        Detectron's core/rpn_generator.py.
    """
    ids = image_ids(dataset)
    rows = [dict(_rows_by_class(proposals.get(i))).get(1, NO_ROWS) for i in ids]
    content = {"boxes": [r[:, :4] for r in rows], "scores": [r[:, 4] for r in rows], "ids": ids}
    return write_whole(file, _for_old_readers(content | {"cfg": config_text}))


def _for_old_readers(content: dict) -> bytes:
    """A pickle of protocol 2 that old Python and NumPy read."""
    # NumPy 2 moved the module that arrays are restored from; the old name is known to old and new.
    new, old = b"cnumpy._core.multiarray\n_reconstruct\n", b"cnumpy.core.multiarray\n_reconstruct\n"
    return pickle.dumps(content, protocol=2).replace(new, old)


def log_copypaste(results: Mapping[str, dict]) -> None:
    """Logs Detectron's ``copypaste:`` lines, which people's scripts read; -1 where there is no value."""
    for name, values in results.items():
        log.info("copypaste: Dataset: %s", name)
        for task, metrics in (("box", METRICS), ("voc", ("AP50",)), ("box_proposal", RECALLS)):
            if task in values:
                known = (values[task][key] for key in metrics)
                row = ",".join(f"{-1.0 if value is None else value:.4f}" for value in known)
                for line in (f"Task: {task}", ",".join(metrics), row):
                    log.info("copypaste: %s", line)


def _rows_by_class(found: Detections | None) -> Iterator[tuple[int, np.ndarray]]:
    """Each class that an image has detections of, and these, (K, 5) float32, best first."""
    if found is None or not len(found):
        return
    scores, classes = numpy_of(found.scores, np.float32), numpy_of(found.classes, np.int64)
    rows = np.concatenate([numpy_of(found.boxes, np.float32).reshape(-1, 4), scores[:, None]], axis=1)
    order = np.lexsort((-scores, classes))
    labels, starts = np.unique(classes[order], return_index=True)
    yield from zip(labels.tolist(), np.split(rows[order], starts[1:]), strict=True)
