# SPDX-License-Identifier: Apache-2.0
"""Decoded images in memory that the main process and its workers share, each once."""

from __future__ import annotations

import mmap
import sys

import torch
from torch import Tensor

from detectron_libra.data.cache import GIB, Cache, Key
from detectron_libra.data.jpeg import FRACTIONS
from detectron_libra.errors import RunError

#: Columns of the table: state, first byte, height and width of the entry, time of change and length of its file.
STATE, COLUMNS = 0, 6
EMPTY, TAKEN, FILLED = range(3)


class RamCache(Cache):
    """An entry per image and fraction; memory is taken page by page as entries come.

    Args:
        images: number of records.
        capacity: most bytes of all entries together.

    Raises:
        RunError: the system does not hand out so much memory.
    """

    name = "DATA.CACHE ram"

    def __init__(self, images: int, capacity: int) -> None:
        super().__init__(capacity)
        self._pixels = shared_bytes(capacity)
        table = shared_bytes(images * len(FRACTIONS) * COLUMNS * 8)
        self._table = table.view(torch.int64).view(images, len(FRACTIONS), COLUMNS)

    def _find(self, key: Key) -> Tensor | None:
        row = self._table[key.index, FRACTIONS.index(key.part)]
        with self._lock:
            state, start, height, width, changed, length = row.tolist()
        if state != FILLED or (changed, length) != (key.changed_ns, key.length):
            return None
        return self._place(start, height, width).permute(2, 0, 1)

    def _keep(self, key: Key, image: Tensor) -> None:
        row = self._table[key.index, FRACTIONS.index(key.part)]
        _, height, width = image.shape
        with self._lock:
            if row[STATE] != EMPTY:  # by another worker, or of another state of the file, which may be in use
                return
            start = self._reserve(image.numel())
            if start < 0:
                return
            row[:] = torch.tensor([TAKEN, start, height, width, key.changed_ns, key.length])
        self._place(start, height, width).copy_(image.permute(1, 2, 0))
        with self._lock:
            row[STATE] = FILLED

    def _place(self, start: int, height: int, width: int) -> Tensor:
        return self._pixels[start : start + 3 * height * width].view(height, width, 3)


def shared_bytes(length: int) -> Tensor:
    """(length,) uint8, zero, that processes started from now on share; not in /dev/shm, which may be small.

    Raises:
        RunError: the system does not hand out so much memory.
    """
    if sys.platform != "linux":  # workers are not forked there, and are sent a name
        return torch.zeros(length, dtype=torch.uint8).share_memory_()
    try:
        return torch.frombuffer(mmap.mmap(-1, max(1, length)), dtype=torch.uint8)[:length]
    except (OSError, ValueError, OverflowError) as e:
        raise RunError(
            f"DATA.CACHE ram: the system does not give {length / GIB:.1f} GiB of memory ({e}); lower DATA.CACHE_GB, "
            "or set DATA.CACHE disk"
        ) from e
