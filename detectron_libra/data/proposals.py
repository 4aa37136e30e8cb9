# SPDX-License-Identifier: Apache-2.0
"""Stored proposals: boxes that another network made of the images of a data set, for Fast R-CNN."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import overload

import numpy as np
import torch
from torch import Tensor

from detectron_libra.data.coco import Dataset, Record
from detectron_libra.errors import InputError

log = logging.getLogger(__name__)

#: A side in pixels that a proposal has to pass.
MIN_SIDE = 2
#: Names of the list of image ids; the first one is of Detectron's early files.
ID_NAMES = ("indexes", "ids")


@dataclass(frozen=True)
class RecordsWithProposals(Sequence[Record]):
    """Records of a data set, each with its stored proposals.

    Attributes:
        records: the records.
        rows: (M, 5) float32, x1 y1 x2 y2 in pixels of the original image and score, of all images.
        starts: (N + 1,) int64, where the rows of each image begin.
    """

    records: Sequence[Record]
    rows: Tensor
    starts: Tensor

    def __len__(self) -> int:
        return len(self.records)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        i = range(len(self))[index]  # negative indices, IndexError
        first, end = self.starts[i : i + 2].tolist()
        return replace(self.records[i], proposals=self.rows[first:end])


def with_proposals(
    dataset: Dataset, content: object, source: str, *, extent: float, limit: int = 0
) -> Dataset:
    """A data set whose records have proposals.

    They are clipped to the image; of those that are equal in whole pixels the first stays; a side of 2 pixels or
    less is too small; then the first ``limit`` of the file stay.

    Args:
        dataset: whose images must be in the file, which may have others too.
        content: what the file holds: a dict of equally long lists ``boxes`` ((P, 4) arrays of x1 y1 x2 y2 in pixels
            of the original image), ``ids`` or ``indexes``, and, if there are any, ``scores`` ((P,) arrays).
        source: the file's name, for messages.
        extent: of the geometry.
        limit: most proposals of an image; 0: all.

    Raises:
        InputError: the file holds something else, or lacks an image.

    Source: Detectron's datasets/json_dataset.py (_add_proposals_from_file).
    """
    boxes, scores, ids = _columns(content, source)
    place = {i: k for k, i in enumerate(ids)}
    rows, counts = [], []
    for record in dataset.records:
        k = place.get(record.image_id)
        if k is None:
            raise InputError(
                f"{source}: no proposals of image {record.image_id!r} of {dataset.name}; make them with a model of "
                "MODEL.RPN_ONLY and tools/test_net.py"
            )
        found = _image(
            boxes[k], None if scores is None else scores[k], f"{source}: image {record.image_id!r}"
        )
        kept = _usable(found, record, extent)
        rows.append(kept[:limit] if limit else kept)
        counts.append(len(rows[-1]))
    joined = np.concatenate([np.zeros((0, 5), np.float32), *rows])
    starts = torch.from_numpy(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))
    log.info("%s: %.0f proposals an image for %s", source, len(joined) / max(1, len(counts)), dataset.name)
    return replace(dataset, records=RecordsWithProposals(dataset.records, torch.from_numpy(joined), starts))


def _first_of_equal(table: np.ndarray) -> np.ndarray:
    first = np.zeros(len(table), dtype=bool)
    first[np.unique(table, axis=0, return_index=True)[1]] = True
    return first


def _usable(rows: np.ndarray, record: Record, extent: float) -> np.ndarray:
    limits = np.array([record.width, record.height] * 2, dtype=np.float32) - np.float32(extent)
    rows[:, :4] = np.clip(rows[:, :4], 0, limits)
    side = rows[:, 2:4] - rows[:, :2] + extent
    return rows[_first_of_equal(rows[:, :4].round()) & (side > MIN_SIDE).all(1)]


def _image(boxes: object, scores: object, where: str) -> np.ndarray:
    """(P, 5) float32 of one image, as the file has them."""
    try:
        table = np.asarray(boxes, dtype=np.float32).reshape(-1, 4)
        column = np.zeros(len(table)) if scores is None else np.asarray(scores, dtype=np.float32)
        rows = np.concatenate([table, column.reshape(len(table), 1)], axis=1, dtype=np.float32)
    except (TypeError, ValueError):
        raise InputError(f"{where}: boxes are no (P, 4) array of numbers with P scores") from None
    if not np.isfinite(rows).all():
        raise InputError(f"{where}: a box or score is not finite")
    return rows


def _columns(content: object, source: str) -> tuple[Sequence, Sequence | None, Sequence]:
    """Lists of boxes, scores and image ids, equally long."""
    if not isinstance(content, Mapping):
        raise InputError(f"{source}: a {type(content).__name__}, not a file of proposals (rpn_proposals.pkl)")
    names = [name for name in ID_NAMES if name in content]
    if "boxes" not in content or not names:
        raise InputError(
            f"{source}: no 'boxes' and 'ids' in it; is this a file of proposals (rpn_proposals.pkl)?"
        )
    boxes, scores, ids = content["boxes"], content.get("scores"), content[names[0]]
    ids = ids.ravel().tolist() if isinstance(ids, np.ndarray) else ids
    columns = [ids, boxes] if scores is None else [ids, boxes, scores]
    if not all(isinstance(c, Sequence | np.ndarray) and len(c) == len(ids) for c in columns):
        raise InputError(f"{source}: its lists of boxes, scores and image ids have different lengths")
    ids = [i.item() if isinstance(i, np.generic) else i for i in ids]
    if not all(isinstance(i, int | str) for i in ids):
        raise InputError(f"{source}: image ids are neither numbers nor texts")
    return boxes, scores, ids
