# SPDX-License-Identifier: Apache-2.0
"""The records of several data sets as those of one, and which of them are trained on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import overload

from detectron_libra.data.coco import Dataset, Record
from detectron_libra.errors import InputError

log = logging.getLogger(__name__)


def require_same_classes(datasets: Sequence[Dataset]) -> None:
    """Raises InputError where the classes of data sets differ."""
    for other in datasets[1:]:
        if other.class_names != datasets[0].class_names:
            raise InputError(
                f"{other.annotation_file}: its categories are not those of {datasets[0].annotation_file}; "
                "data sets trained together need the same names in the same order"
            )


def trainable(
    datasets: Sequence[Dataset], keep_empty: bool
) -> tuple[JoinedRecords, list[int], list[tuple[int, int]]]:
    """All records, the positions of those to train on, and the (height, width) of each of these in pixels."""
    indices, sizes = [], []
    records = JoinedRecords(datasets)
    for k, record in enumerate(r for d in datasets for r in d.records):
        if keep_empty or bool((~record.crowd).any()):
            indices.append(k)
            sizes.append((record.height, record.width))
    left_out = len(records) - len(indices)
    if left_out:
        log.warning("left out %d of %d images: no box to learn from", left_out, len(records))
    return records, indices, sizes


class JoinedRecords(Sequence[Record]):
    """Records of several data sets, one after the other."""

    def __init__(self, datasets: Sequence[Dataset]) -> None:
        self._parts = [d.records for d in datasets]
        self._starts = [sum(map(len, self._parts[:k])) for k in range(len(self._parts))]

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        part = max(k for k, start in enumerate(self._starts) if start <= index and len(self._parts[k]))
        return self._parts[part][index - self._starts[part]]

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    @property
    def files(self) -> list[str]:
        """Path of each image."""
        return [record.file for part in self._parts for record in part]
