# SPDX-License-Identifier: Apache-2.0
"""From a budget to a cache for the images of a training: how much they take, and how many fit."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from detectron_libra import machine
from detectron_libra.data.batches import Preparation
from detectron_libra.data.cache import GIB, MODES, Cache, key_of
from detectron_libra.data.cache_disk import DiskCache, file_name, make_room
from detectron_libra.data.cache_ram import RamCache
from detectron_libra.data.coco import Record
from detectron_libra.data.jpeg import fraction
from detectron_libra.data.transforms import resized

log = logging.getLogger(__name__)

Size = tuple[int, int]


@dataclass(frozen=True)
class CacheSettings:
    """Where decoded images are kept.

    Attributes:
        mode: of cache.MODES.
        capacity: most bytes of all of them together.
        folder: of the entries of ``disk``; exists and can be written to.
    """

    mode: str
    capacity: int
    folder: Path | None = None


def open_cache(
    settings: CacheSettings,
    records: Sequence[Record],
    indices: Sequence[int],
    sizes: Sequence[Size],
    scales: Sequence[int],
    how: Preparation,
) -> Cache | None:
    """A cache for the images that are trained on; None without one. One line of the log says how many fit.

    Args:
        records: all; indices: of those that are trained on; sizes: their (height, width) in pixels.
        scales: sides that are drawn from, in pixels.

    Raises:
        RunError: the system does not hand out so much memory.
    """
    assert settings.mode in MODES, settings.mode
    if settings.mode == "none":
        return None
    needed = decoded_bytes(sizes, scales, how)
    _announce(settings, needed)
    if settings.mode == "ram":
        free = machine.available_memory()
        wanted = min(settings.capacity, sum(needed))
        if free is not None and wanted > free:
            log.warning(
                "DATA.CACHE ram: the images will take %.1f GiB, and %.1f GiB of memory are free; lower "
                "DATA.CACHE_GB, or set DATA.CACHE disk",
                wanted / GIB,
                free / GIB,
            )
        # pixels of a format without fractions come whole, once for each fraction that is asked for
        most = sum(3 * h * w * len(parts(s, scales, how)) for s in sizes for h, w in (s,))
        return RamCache(len(records), min(settings.capacity, most))
    assert settings.folder is not None
    own = _names(records, indices, scales, how)
    used = make_room(settings.folder, settings.capacity, sum(needed), own)
    return DiskCache(settings.folder, settings.capacity, used)


def decoded_bytes(sizes: Sequence[Size], scales: Sequence[int], how: Preparation) -> list[int]:
    """Bytes of each image as it will be decoded, once for every fraction that its scales ask for.

    Args:
        sizes: (height, width) of each image, in pixels; scales: sides that are drawn from.
    """
    return [
        sum(3 * -(-size[0] // part) * -(-size[1] // part) for part in parts(size, scales, how))
        for size in sizes
    ]


def parts(size: Size, scales: Sequence[int], how: Preparation) -> set[int]:
    """The fractions that a JPEG of this size is decoded at, see ``jpeg.fraction``."""
    if not how.draft:
        return {1}
    return {fraction(size, resized(*size, side=side, max_size=how.max_size)[1:]) for side in scales}


def _names(
    records: Sequence[Record], indices: Sequence[int], scales: Sequence[int], how: Preparation
) -> Iterator[str]:
    """Names of all entries that a training may have in a folder."""
    for index in indices:
        record = records[index]
        size = record.height, record.width
        for side in scales:
            wanted = resized(*size, side=side, max_size=how.max_size)[1:] if how.draft else None
            key = key_of(index, record.file, wanted, size, how.reader)
            if key:
                yield file_name(key)


def _announce(settings: CacheSettings, needed: Sequence[int]) -> None:
    total, count = sum(needed), len(needed)
    fits = "all fit"
    if total > settings.capacity:
        fits = f"about {count * settings.capacity // total} fit"
    log.info(
        "DATA.CACHE %s: %d images, about %.2f GiB decoded; %s in DATA.CACHE_GB %.3g",
        settings.mode,
        count,
        total / GIB,
        fits,
        settings.capacity / GIB,
    )
