# SPDX-License-Identifier: Apache-2.0
"""Decoded images in a folder, a file each, which later runs of the same data set find again."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import struct
import time
import zlib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from detectron_libra.data.cache import FAILED, Cache, Key
from detectron_libra.data.jpeg import version_of

log = logging.getLogger(__name__)

SUFFIX, TEMPORARY = ".pixels", ".tmp"
#: Beginning of an entry: what it is, height, width, and a checksum of the pixels that follow, (H, W, 3) uint8.
HEADER = struct.Struct("<8sIII")
MARK = b"LIBRAPX1"
#: Seconds after which a file that somebody was writing is taken for that of a process that was killed.
ABANDONED_S = 3600


class DiskCache(Cache):
    """A file per image, fraction and reader. Its name says what it belongs to, its checksum that it is whole.

    An entry is written beside its place and renamed, so that runs can use one folder at the same time. What is found is
    believed only with the length and the checksum that it should have; else it is decoded and written anew.

    Args:
        folder: exists and can be written to.
        capacity: most bytes of all entries in the folder together.
        used: bytes that are there, see ``make_room``.
    """

    def __init__(self, folder: Path, capacity: int, used: int) -> None:
        super().__init__(capacity, used)
        self._folder = folder

    @property
    def name(self) -> str:
        return f"DATA.CACHE disk, {self._folder}"

    def _find(self, key: Key) -> Tensor | None:
        height, width = key.size
        try:
            with open(self._folder / file_name(key), "rb", buffering=0) as file:
                length = os.fstat(file.fileno()).st_size
                if not HEADER.size < length <= HEADER.size + 3 * height * width:
                    return None
                content = bytearray(length)
                return _pixels(content) if file.readinto(content) == length else None
        except OSError:
            return None

    def _keep(self, key: Key, image: Tensor) -> None:
        _, height, width = image.shape
        length = HEADER.size + image.numel()
        with self._lock:
            if self._reserve(length) < 0:
                return
        pixels = image.permute(1, 2, 0).contiguous().numpy().data
        path = self._folder / file_name(key)
        temporary = path.with_name(f"{path.name}{TEMPORARY}{os.getpid()}")
        try:
            with open(temporary, "wb", buffering=0) as file:
                file.write(HEADER.pack(MARK, height, width, zlib.crc32(pixels)))
                if file.write(pixels) != image.numel():
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.replace(temporary, path)  # not flushed: after a loss of power the checksum tells
        except OSError as e:
            with suppress(OSError):
                temporary.unlink()
            with self._lock:
                self._counts[FAILED] = e.errno or errno.EIO


def file_name(key: Key) -> str:
    """The name of an entry: a digest of all that its pixels depend on, the version of the decoder included."""
    state = os.path.abspath(key.file), key.changed_ns, key.length, key.size, key.part, version_of(key.reader)
    return hashlib.blake2b(repr(state).encode(), digest_size=20).hexdigest() + SUFFIX


def make_room(folder: Path, capacity: int, needed: int, own: Iterable[str]) -> int:
    """Remove entries of other data sets, the oldest first, until those of a run have room.

    Args:
        folder: exists.
        capacity: most bytes of all entries together.
        needed: bytes of the run's own entries, those that are there included.
        own: their names; looked at only where there is not room enough for everything.

    Returns:
        Bytes of the entries that are there.
    """
    entries = _entries(folder)
    used = sum(status.st_size for status in entries.values())
    if used + needed <= capacity:
        return used
    mine = set(own) & set(entries)
    missing = max(0, needed - sum(entries[name].st_size for name in mine))
    removed = 0
    for name in sorted(set(entries) - mine, key=lambda name: entries[name].st_mtime_ns):
        if used + missing <= capacity:
            break
        with suppress(OSError):
            (folder / name).unlink()
            used, removed = used - entries[name].st_size, removed + 1
    if removed:
        log.info("DATA.CACHE disk, %s: %d images of other runs are removed", folder, removed)
    return used


def _entries(folder: Path) -> dict[str, os.stat_result]:
    """Name and state of each entry of a folder; removes what killed processes left."""
    found = {}
    for entry in os.scandir(folder):
        with suppress(OSError):  # another run may have removed it meanwhile
            if entry.name.endswith(SUFFIX):
                found[entry.name] = entry.stat()
            elif TEMPORARY in entry.name and time.time() - entry.stat().st_mtime > ABANDONED_S:
                os.unlink(entry.path)
    return found


def _pixels(content: bytearray) -> Tensor | None:
    """(3, H, W) uint8 of an entry, None where it is not whole."""
    mark, height, width, checksum = HEADER.unpack_from(content)
    pixels = memoryview(content)[HEADER.size :]
    if mark != MARK or len(pixels) != 3 * height * width or zlib.crc32(pixels) != checksum:
        return None
    flat = torch.frombuffer(content, dtype=torch.uint8, offset=HEADER.size)
    return flat.view(height, width, 3).permute(2, 0, 1)
