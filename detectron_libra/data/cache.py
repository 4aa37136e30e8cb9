# SPDX-License-Identifier: Apache-2.0
"""Decoded images that are kept for the next epoch, in memory that all workers share or in a folder.

Kept is what ``images.read_image`` gives: pixels as decoded, before any flip and resizing. An entry counts for one state
of one file (its time of change and its length), one fraction and one reader; another state is decoded again. So a batch
has the same bits with a cache and without one.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from detectron_libra.data.images import read_image
from detectron_libra.data.jpeg import fraction

log = logging.getLogger(__name__)

MODES = ("none", "ram", "disk")
GIB = 2**30
#: Places of the shared counts: bytes in use, images kept, whether one had no room, number of an error of the system.
USED, KEPT, FULL, FAILED = range(4)


@dataclass(frozen=True)
class Key:
    """What an entry belongs to.

    Attributes:
        index: of the record; file: its path.
        changed_ns, length: time of change and bytes of the file.
        size: (height, width) as the annotations state it.
        part: f of jpeg.FRACTIONS; reader: what decoded it.
    """

    index: int
    file: str
    changed_ns: int
    length: int
    size: tuple[int, int]
    part: int
    reader: str


class Cache(ABC):
    """Images of one data set or several; made before the workers are, which share it.

    Args:
        capacity: most bytes of all entries together.
        used: bytes of those that are there already.
    """

    def __init__(self, capacity: int, used: int = 0) -> None:
        self._capacity = capacity
        self._counts = torch.tensor([used, 0, 0, 0], dtype=torch.int64).share_memory_()
        # Held for a few instructions only. It orders memory too: who sees an entry sees all of its pixels.
        self._lock = multiprocessing.get_context("fork" if sys.platform == "linux" else None).Lock()
        self._told = False

    def read(
        self,
        index: int,
        file: str,
        *,
        draft_size: tuple[int, int] | None,
        size: tuple[int, int],
        reader: str,
        checked: bool = False,
    ) -> Tensor:
        """An image as ``images.read_image`` gives it, which keeps it where there is room. Not to be written to.

        Args:
            index: of the record; the others as there.

        Raises:
            InputError: as there.
        """
        key = key_of(index, file, draft_size, size, reader)
        image = self._find(key) if key else None
        if image is None:
            image = read_image(file, draft_size=draft_size, size=size, reader=reader, checked=checked)
            if key:
                self._keep(key, image)
        return image

    def tell(self) -> None:
        """Called in the main process now and then: logs once that the cache is full, or cannot be written."""
        if self._told:
            return
        _, kept, full, failed = self._counts.tolist()
        if failed:
            log.warning(
                "%s: nothing is added any more (%s), and the images that it lacks are decoded every time",
                self.name,
                os.strerror(failed),
            )
        elif full:
            log.info(
                "%s: full with DATA.CACHE_GB %.3g after %d images were added; the others are decoded every time",
                self.name,
                self._capacity / GIB,
                kept,
            )
        self._told = bool(failed or full)

    @property
    def kept(self) -> int:
        """Images that were added."""
        return int(self._counts[KEPT])

    @property
    @abstractmethod
    def name(self) -> str:
        """What the log calls it."""

    @abstractmethod
    def _find(self, key: Key) -> Tensor | None:
        """(3, H, W) uint8, or None where there is no entry."""

    @abstractmethod
    def _keep(self, key: Key, image: Tensor) -> None:
        """Add (3, H, W) uint8, where there is room."""

    def _reserve(self, length: int) -> int:
        """Where ``length`` bytes begin that are now taken, -1 where there is no room. Called with the lock held."""
        start = int(self._counts[USED])
        if start + length > self._capacity or self._counts[FAILED]:
            self._counts[FULL] = 1
            return -1
        self._counts[USED] = start + length
        self._counts[KEPT] += 1
        return start


def key_of(
    index: int, file: str, draft_size: tuple[int, int] | None, size: tuple[int, int], reader: str
) -> Key | None:
    """What the entry of an image belongs to, as its file is now; None where that is not told: its reader says why."""
    try:
        status = os.stat(file)
    except (OSError, ValueError):
        return None
    part = fraction(size, draft_size)
    return Key(index, file, status.st_mtime_ns, status.st_size, size, part, reader)
