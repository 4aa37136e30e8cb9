# SPDX-License-Identifier: Apache-2.0
"""Which image each worker process has in its hands, so that the end of one can be told with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch.utils.data import get_worker_info

#: Columns of the shared table.
INDEX, READING = 0, 1
NAMES_SHOWN = 4


class Process(Protocol):
    """What is asked of a worker process."""

    def is_alive(self) -> bool: ...


class Held:
    """A row per worker in shared memory: the record it reads, or read last.

    Args:
        workers: their number; 0 where this process reads itself.
    """

    def __init__(self, workers: int) -> None:
        table = torch.full((workers, 2), -1, dtype=torch.int64)
        self._table = table.share_memory_() if workers else table

    def take(self, index: int) -> None:
        """Called in a worker before it reads the record ``index``."""
        info = get_worker_info()
        if info is not None:
            self._table[info.id] = torch.tensor([index, 1])

    def release(self) -> None:
        """Called in a worker once its record is read."""
        info = get_worker_info()
        if info is not None:
            self._table[info.id, READING] = 0

    def describe(self, processes: Sequence[Process], files: Sequence[str], *, hung: bool) -> str:
        """What workers had in their hands.

        Args:
            processes: the workers, in order of their rows.
            hung: tell of those that read, and not of those that died.
            files: path of each record.

        Returns:
            Words that begin with a space, empty where nothing was read.
        """
        rows = self._table.tolist()
        told = [
            row
            for row, process in zip(rows, processes, strict=False)
            if (row[READING] if hung else not process.is_alive())
        ]
        reading = [files[row[INDEX]] for row in told if row[INDEX] >= 0 and row[READING]]
        if reading:
            return f" while it read {_some(reading)}"
        before = [files[row[INDEX]] for row in told if row[INDEX] >= 0]
        return f" after it had read {_some(before)}" if before else ""


def _some(names: Sequence[str]) -> str:
    more = len(names) - NAMES_SHOWN
    return " or ".join(names[:NAMES_SHOWN]) + (f" or {more} more" if more > 0 else "")
