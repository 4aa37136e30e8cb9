# SPDX-License-Identifier: Apache-2.0
"""Whether a training waited for its data, and what would change that: one sentence at its end."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

#: First iterations that are not counted: workers start, a cache is empty, and the model warms up.
SKIPPED = 10
#: Fewer iterations than this say nothing about a run.
FEWEST = 20
#: Share of the time spent waiting from which the loader is called the bottleneck.
LIMIT = 0.05
GIB = 2**30


class Waiting:
    """Sums over the steps of a run."""

    def __init__(self) -> None:
        self.steps, self.images, self.seconds, self.waited = 0, 0, 0.0, 0.0

    def add(self, step: int, *, images: int, seconds: float, waited: float) -> None:
        """Takes one step.

        Args:
            step: counted from 0 since the loader was started.
            images: in the batch; seconds: of the whole step, ``waited`` of them for the batch.
        """
        if step >= SKIPPED:
            self.steps += 1
            self.images += images
            self.seconds += seconds
            self.waited += waited

    @property
    def share(self) -> float | None:
        """Of the time, what was spent waiting for data; None where too few steps were counted."""
        return self.waited / self.seconds if self.steps >= FEWEST and self.seconds > 0 else None


@dataclass(frozen=True)
class Reading:
    """How a run read its images, and what it could have.

    Attributes:
        workers: processes; cores: that this process and they may use; busy: cores that the model computes with.
        cache: DATA.CACHE; capacity: bytes of DATA.CACHE_GB; free_memory: bytes, None where unknown.
        decoded: bytes of all images, decoded as in this run.
        epochs: times that each image was read, on average.
        reader: DATA.READER; faster: a reader that is installed, else ""; package: that brings one.
        jpegs: the images are JPEGs.
        reducible: most of them are at least twice as large as they are trained at, and are decoded whole.
        draft: DATA.DRAFT.
    """

    workers: int
    cores: int
    busy: int
    cache: str
    capacity: int
    free_memory: int | None
    decoded: int
    epochs: float
    reader: str
    faster: str
    package: str
    jpegs: bool
    reducible: bool
    draft: bool


def verdict(waiting: Waiting, reading: Reading) -> str:
    """The sentence, empty where the loader kept up or too few steps were counted."""
    share = waiting.share
    if share is None or share <= LIMIT:
        return ""
    delivered = waiting.images / waiting.seconds
    rest = waiting.seconds - waiting.waited
    possible = f"the model could take {waiting.images / rest:.1f}" if rest > 0 else "the model took no time"
    return (
        f"the loader was the bottleneck: {share:.0%} of the time went by waiting for data "
        f"({delivered:.1f} images/s came, {possible}); {', or '.join(remedies(reading, share))}"
    )


def remedies(reading: Reading, share: float) -> list[str]:
    """What to change, what helps most first; never empty.

    Args:
        share: of the time spent waiting.
    """
    found = [*_workers(reading, share), *_cache(reading), *_decoding(reading)]
    return found or ["store the images at about the size that they are trained at, or use more cores"]


def _workers(r: Reading, share: float) -> Iterator[str]:
    if r.workers == 0:
        yield f"set DATA.WORKERS {max(1, min(4, r.cores - r.busy))}, which read while the model computes"
        return
    # as many as would have kept up, and one for the variation between batches
    wanted = math.ceil(r.workers / max(1 - share, 0.01)) + 1
    count = min(wanted, r.cores - r.busy)
    if count > r.workers:
        yield f"raise DATA.WORKERS (or DATA_LOADER.NUM_THREADS) from {r.workers} to {count}"


def _cache(r: Reading) -> Iterator[str]:
    if r.epochs <= 1:
        return
    size = f"the decoded images take {r.decoded / GIB:.2g} GiB"
    in_memory = r.free_memory is None or r.decoded < r.free_memory / 2
    if r.cache == "none" and r.decoded <= r.capacity and in_memory:
        yield f"set DATA.CACHE ram ({size})"
    elif r.decoded > r.capacity or r.cache == "none":
        room = math.ceil(10 * r.decoded / GIB) / 10
        kind = "ram" if r.free_memory is not None and in_memory else "disk"
        yield f"set DATA.CACHE {kind} and DATA.CACHE_GB {room:g} ({size})"


def _decoding(r: Reading) -> Iterator[str]:
    if r.cache != "none" and r.decoded <= r.capacity and r.epochs > 1:
        return  # decoded once, and no longer what takes time
    if r.reducible and r.jpegs:
        if r.draft:
            yield "train a new model with MODEL.BOX_GEOMETRY continuous, which reads large JPEGs at a fraction"
        else:
            yield "set DATA.DRAFT True"
    if r.jpegs and r.reader == "pillow":
        how = "is installed" if r.faster else f"pip install {r.package}"
        yield f"set DATA.READER {r.faster or r.package} ({how})"
