# SPDX-License-Identifier: Apache-2.0
"""Which image comes when, and how it is changed: a pure function of seed and iteration.

Everything random about the data is decided here, in the main process. Workers decide nothing, so their
number changes nothing, and a resumed run needs the iteration and no state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from detectron_libra.errors import InputError


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

    Raises:
        InputError: no image to train on.

    Source: Detectron's roi_data/loader.py (_shuffle_roidb_inds) and datasets/roidb.py.
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
    ) -> None:
        if len(indices) == 0:
            raise InputError("no image with a usable box to train on; check the training annotations")
        copies = (False, True) if flip_x else (False,)
        self._samples = [Sample(int(i), int(scales[0]), flip_x=f) for f in copies for i in indices]
        tall = ~np.tile(np.asarray(wide, dtype=bool), len(copies))
        kinds = [np.flatnonzero(~tall), np.flatnonzero(tall)] if group_by_aspect else [np.arange(len(tall))]
        self._kinds = [k for k in kinds if len(k)]
        self._images_per_batch = images_per_batch
        self._scales = [int(s) for s in scales]
        self._flip_y = flip_y
        self._seed = seed
        self.batches_per_epoch = sum(-(-len(k) // images_per_batch) for k in self._kinds)
        self._epochs: dict[int, list[tuple[Sample, ...]]] = {}

    @property
    def images_per_epoch(self) -> int:
        """Images of an epoch, mirrored copies counted."""
        return len(self._samples)

    def batch(self, iteration: int) -> tuple[Sample, ...]:
        """The samples of one iteration, counted from 0."""
        epoch, k = divmod(iteration, self.batches_per_epoch)
        if epoch not in self._epochs:
            self._epochs = {epoch: self._shuffle(epoch)}
        return self._epochs[epoch][k]

    def _shuffle(self, epoch: int) -> list[tuple[Sample, ...]]:
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence((self._seed, epoch))))
        rows: list[np.ndarray] = []
        for kind in self._kinds:
            order = rng.permutation(kind)
            count = -(-len(order) // self._images_per_batch)
            rows.extend(np.resize(order, (count, self._images_per_batch)))
        sides = rng.integers(len(self._scales), size=len(self._samples))
        upside_down = rng.random(len(self._samples)) < 0.5
        return [
            tuple(
                replace(
                    self._samples[k],
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
