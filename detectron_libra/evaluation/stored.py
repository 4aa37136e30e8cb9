# SPDX-License-Identifier: Apache-2.0
"""Detections out of the layout of Detectron's detections.pkl."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import InputError
from ..structures import Detections
from .arrays import Id


def detections_of(
    content: Any, image_ids: Sequence[Id], num_classes: int, *, file: Path | str
) -> dict[Id, Detections]:
    """Detections by image id, best first, of equal scores those of the lower class.

    Args:
        content: what the file holds: ``all_boxes[class][image]``, (K, 5) x1 y1 x2 y2 score, or an empty list.
        image_ids: of the images, in the order of the file.
        num_classes: with background, which has no boxes.
        file: named in errors.

    Raises:
        InputError: another layout, or other numbers of classes or images.
    """
    by_class = content.get("all_boxes") if isinstance(content, Mapping) else None
    if not isinstance(by_class, list) or not all(isinstance(images, list) for images in by_class):
        raise InputError(f"{file}: no all_boxes[class][image] in it; is this a detections.pkl?")
    if len(by_class) != num_classes:
        raise InputError(
            f"{file}: detections of {len(by_class) - 1} classes, but the data set has {num_classes - 1}; "
            "name the data set they were made on"
        )
    for images in by_class[1:]:
        if len(images) != len(image_ids):
            raise InputError(
                f"{file}: detections of {len(images)} images, but the data set has {len(image_ids)}; "
                "name the data set they were made on"
            )
    return {
        ident: _of_image([by_class[k][n] for k in range(1, num_classes)], f"{file}: image {ident!r}")
        for n, ident in enumerate(image_ids)
    }


def _of_image(by_class: Sequence[Any], where: str) -> Detections:
    parts = [_rows(rows, f"{where}, class {k}") for k, rows in enumerate(by_class, start=1)]
    classes = np.repeat(np.arange(1, len(parts) + 1), [len(part) for part in parts])
    rows = np.concatenate([np.zeros((0, 5), np.float32), *parts])
    order = np.argsort(-rows[:, 4], kind="stable")
    rows, classes = torch.from_numpy(rows[order]), torch.from_numpy(classes[order].astype(np.int64))
    return Detections(rows[:, :4].contiguous(), rows[:, 4].contiguous(), classes)


def _rows(rows: Any, where: str) -> np.ndarray:
    try:
        array = np.asarray(rows, np.float32)
    except (TypeError, ValueError) as e:
        raise InputError(f"{where}: want rows of x1, y1, x2, y2, score: {e}") from e
    if array.size == 0:
        return np.zeros((0, 5), np.float32)
    if array.ndim != 2 or array.shape[1] != 5 or not np.isfinite(array).all():
        raise InputError(f"{where}: want rows of x1, y1, x2, y2, score, all finite; shape {array.shape}")
    return array
