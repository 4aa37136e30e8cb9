# SPDX-License-Identifier: Apache-2.0
"""Which image comes when, and how it is changed: a pure function of seed and iteration.

Everything random about the data is decided here, in the main process. Workers decide nothing, so their
number changes nothing, and a resumed run needs the iteration and no state.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from detectron_libra.errors import InputError

#: Names the stream of random numbers that repetitions are drawn from.
REPEATS = 1


def _generator(*key: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))


@dataclass(frozen=True)
class Sample:
    """One image of a batch.

    Attributes:
        index: position of its record.
        side: wanted length of the short side, in pixels.
        flip_x, flip_y: mirrored left to right, top to bottom.
        stretch: wanted width / width of the original, before it is resized.
        max_size: most pixels of the long side, where it is not that of the run.
    """

    index: int
    side: int
    flip_x: bool = False
    flip_y: bool = False
    stretch: float = 1.0
    max_size: int | None = None


class TrainPlan:
    """The batches of a training run.

    An epoch has every image once (twice with ``flip_x``: as it is, and mirrored, Detectron's USE_FLIPPED).
    With ``group_by_aspect`` a batch has images of one kind only, wide (w >= h) or tall. The last batch of a
    kind is filled up from the kind's start, so that no image is lost (Detectron leaves it out).

    Args:
        indices: positions of the records to train on.
        wide: for each of ``indices``, whether its width is at least its height.
        images_per_batch: N.
        scales: short sides in pixels; one is drawn for every image.
        flip_x: append a mirrored copy of every image.
        flip_y: mirror half of the images top to bottom.
        group_by_aspect: batches of one kind.
        seed: of the run.
        factors: (I,) >= 0, the mean number of times that an epoch has each image; None: once. Rounded up or down at
            random, anew in each epoch, so that epochs are not of one length.

    Raises:
        InputError: no image to train on.

    Source: Detectron's roi_data/loader.py (_shuffle_roidb_inds) and datasets/roidb.py; Gupta et al.,
    arXiv:1908.03195, for the factors and their rounding.
    """

    def __init__(
        self,
        indices: Sequence[int],
        wide: Sequence[bool],
        *,
        images_per_batch: int,
        scales: Sequence[int],
        flip_x: bool,
        flip_y: bool,
        group_by_aspect: bool,
        seed: int,
        factors: np.ndarray | None = None,
    ) -> None:
        if len(indices) == 0:
            raise InputError("no image with a usable box to train on; check the training annotations")
        copies = (False, True) if flip_x else (False,)
        self._samples = [Sample(int(i), int(scales[0]), flip_x=f) for f in copies for i in indices]
        self._wide = np.tile(np.asarray(wide, dtype=bool), len(copies))
        self._factors = None if factors is None else np.tile(factors, len(copies))
        self._group_by_aspect = group_by_aspect
        self._images_per_batch = images_per_batch
        self._scales = [int(s) for s in scales]
        self._flip_y = flip_y
        self._seed = seed
        self.batches_per_epoch = self._count_batches(0)
        self._starts = [0]
        self._epochs: dict[int, list[tuple[Sample, ...]]] = {}

    @property
    def images_per_epoch(self) -> int:
        """Images of an epoch, mirrored copies counted and each once."""
        return len(self._samples)

    def batch(self, iteration: int) -> tuple[Sample, ...]:
        """The samples of one iteration, counted from 0."""
        epoch, k = self._locate(iteration)
        if epoch not in self._epochs:
            self._epochs = {epoch: self._shuffle(epoch)}
        return self._epochs[epoch][k]

    def _locate(self, iteration: int) -> tuple[int, int]:
        """Epoch of an iteration, and its place there."""
        if self._factors is None:
            return divmod(iteration, self.batches_per_epoch)
        while self._starts[-1] <= iteration:
            self._starts.append(self._starts[-1] + self._count_batches(len(self._starts) - 1))
        epoch = bisect_right(self._starts, iteration) - 1
        return epoch, iteration - self._starts[epoch]

    def _count_batches(self, epoch: int) -> int:
        return sum(-(-len(kind) // self._images_per_batch) for kind in self._kinds(self._chosen(epoch)))

    def _chosen(self, epoch: int) -> np.ndarray:
        """Positions in ``_samples``, as often as this epoch has each of them."""
        everyone = np.arange(len(self._samples))
        if self._factors is None:
            return everyone
        # A stream of its own: what else is drawn stays as it is without factors.
        draws = _generator(self._seed, epoch, REPEATS).random(len(everyone))
        whole = np.floor(self._factors)
        return np.repeat(everyone, (whole + (draws < self._factors - whole)).astype(np.int64))

    def _kinds(self, chosen: np.ndarray) -> list[np.ndarray]:
        """Places in ``chosen`` that may share a batch."""
        if not self._group_by_aspect:
            return [np.arange(len(chosen))]
        wide = self._wide[chosen]
        return [kind for kind in (np.flatnonzero(wide), np.flatnonzero(~wide)) if len(kind)]

    def _shuffle(self, epoch: int) -> list[tuple[Sample, ...]]:
        rng = _generator(self._seed, epoch)
        chosen = self._chosen(epoch)
        rows: list[np.ndarray] = []
        for kind in self._kinds(chosen):
            order = rng.permutation(kind)
            count = -(-len(order) // self._images_per_batch)
            rows.extend(np.resize(order, (count, self._images_per_batch)))
        sides = rng.integers(len(self._scales), size=len(chosen))
        upside_down = rng.random(len(chosen)) < 0.5
        return [
            tuple(
                replace(
                    self._samples[chosen[k]],
                    side=self._scales[sides[k]],
                    flip_y=self._flip_y and bool(upside_down[k]),
                )
                for k in rows[r]
            )
            for r in rng.permutation(len(rows))
        ]


def test_batches(count: int, views: Sequence[Sample], images_per_batch: int) -> list[tuple[Sample, ...]]:
    """Every record once in every view, in order; the last batch of each view may be short.

    Args:
        count: records.
        views: how they are shown, whatever their ``index``; the views of the same images follow one another.
    """
    groups = [range(count)[k : k + images_per_batch] for k in range(0, count, images_per_batch)]
    return [tuple(replace(view, index=i) for i in group) for group in groups for view in views]
