# SPDX-License-Identifier: Apache-2.0
"""Batches out of worker processes. A plan decides what is in them; a worker only reads, resizes, pads."""

from __future__ import annotations

import ctypes
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader, get_worker_info

from detectron_libra.data.batches import Preparation, Prepared, collate, prepare
from detectron_libra.data.cache import Cache
from detectron_libra.data.caching import CacheSettings, open_cache
from detectron_libra.data.coco import Dataset
from detectron_libra.data.held import Held
from detectron_libra.data.image_sampling import ImageSampler
from detectron_libra.data.images import read_image
from detectron_libra.data.joined import JoinedRecords, require_same_classes, trainable
from detectron_libra.data.jpeg import PILLOW
from detectron_libra.data.plan import Sample, TrainPlan, test_batches
from detectron_libra.data.sharing import shared
from detectron_libra.data.workers import Loader
from detectron_libra.errors import LibraError
from detectron_libra.structures import Batch

NO_CACHE = CacheSettings("none", 0)
#: Windows has no SIGHUP.
_NOT_FOR_WORKERS = ("SIGINT", "SIGTERM", "SIGHUP")
#: PR_SET_PDEATHSIG of <linux/prctl.h>.
_DIE_WITH_PARENT = 1


def build_train_loader(
    datasets: Sequence[Dataset],
    *,
    scales: Sequence[int],
    max_size: int,
    images_per_batch: int,
    flip_x: bool,
    flip_y: bool = False,
    aspect_grouping: bool,
    stride: int,
    extent: float,
    resize_in_float: bool,
    workers: int,
    seed: int,
    max_iter: int,
    start_iteration: int = 0,
    keep_empty: bool = False,
    sampler: ImageSampler | None = None,
    draft: bool = True,
    reader: str = PILLOW,
    checked: bool = False,
    cache: CacheSettings = NO_CACHE,
    pin_memory: bool = False,
    timeout_s: float = 0,
) -> Loader:
    """The batches of the iterations ``start_iteration .. max_iter - 1``.

    Args:
        datasets: trained on together; all with the same classes.
        scales, images_per_batch, flip_x, flip_y, aspect_grouping, seed: see plan.TrainPlan.
        max_size, stride, extent, resize_in_float, draft, reader, checked: see Preparation.
        workers: processes; 0 reads in this one. The batches do not depend on it.
        keep_empty: train on images without a box, too; Detectron leaves them out, and those with only crowds.
        sampler: how often an epoch has each image; None: once.
        cache: where decoded images are kept.
        pin_memory: hand out page-locked memory.
        timeout_s: seconds without a batch after which the run stops; 0 waits for ever.

    Returns:
        Loader.

    Raises:
        InputError: no image to train on, or different classes. RunError: no memory for the cache.
    """
    require_same_classes(datasets)
    records, indices, sizes = trainable(datasets, keep_empty)
    plan = TrainPlan(
        indices,
        [width >= height for height, width in sizes],
        images_per_batch=images_per_batch,
        scales=scales,
        flip_x=flip_x,
        flip_y=flip_y,
        group_by_aspect=aspect_grouping,
        seed=seed,
        factors=sampler([records[k] for k in indices]) if sampler and indices else None,
    )
    preparation = Preparation(
        max_size, stride, extent, resize_in_float, draft, True, reader=reader, checked=checked
    )
    batches = Batches(plan.batch, range(start_iteration, max_iter))
    kept = open_cache(cache, records, indices, sizes, scales, preparation)
    return _loader(records, batches, preparation, workers, pin_memory, timeout_s, kept)


def build_test_loader(
    dataset: Dataset,
    *,
    views: Sequence[Sample],
    max_size: int,
    images_per_batch: int,
    stride: int,
    extent: float,
    resize_in_float: bool,
    workers: int,
    draft: bool = True,
    reader: str = PILLOW,
    dedup: float = 0.0,
    pin_memory: bool = False,
    timeout_s: float = 0,
) -> Loader:
    """Every image once, in order of image id, without targets; other arguments as in build_train_loader.

    Args:
        views: how each image is shown; with several, the batches of the same images follow one another.
        dedup: see Preparation.
    """
    batches = test_batches(len(dataset.records), views, images_per_batch)
    preparation = Preparation(max_size, stride, extent, resize_in_float, draft, False, dedup, reader)
    source = Batches(batches.__getitem__, range(len(batches)))
    return _loader(JoinedRecords([dataset]), source, preparation, workers, pin_memory, timeout_s)


class Batches:
    """What the main process sends to the workers: the samples of each iteration of a range."""

    def __init__(self, batch: Callable[[int], tuple[Sample, ...]], iterations: range) -> None:
        self._batch = batch
        self._iterations = iterations

    def __iter__(self) -> Iterator[tuple[Sample, ...]]:
        return map(self._batch, self._iterations)

    def __len__(self) -> int:
        return len(self._iterations)


class _Reader(torch.utils.data.Dataset):
    """Runs in a worker: samples -> Batch, or the error for the user (torch would rewrite its text)."""

    def __init__(self, records: JoinedRecords, how: Preparation, held: Held, cache: Cache | None) -> None:
        self._records = records
        self._held = held
        self._how = how
        self._cache = cache

    def __getitem__(self, samples: tuple[Sample, ...]) -> Batch | LibraError:
        try:
            items = [self._prepare(s) for s in samples]
        except LibraError as e:
            return type(e)(str(e))
        make = partial(collate, items, stride=self._how.stride, with_targets=self._how.with_targets)
        return shared(make) if get_worker_info() is not None else make()

    def _prepare(self, sample: Sample) -> Prepared:
        self._held.take(sample.index)
        try:
            read = partial(self._cache.read, sample.index) if self._cache else read_image
            return prepare(self._records[sample.index], sample, self._how, read)
        finally:
            self._held.release()


def _loader(
    records: JoinedRecords,
    batches: Batches,
    how: Preparation,
    workers: int,
    pin_memory: bool,
    timeout_s: float,
    cache: Cache | None = None,
) -> Loader:
    extra: dict[str, Any] = {}
    if workers > 0:
        extra = {"timeout": timeout_s, "worker_init_fn": _start_worker}
        if sys.platform == "linux":
            extra["multiprocessing_context"] = "fork"  # shares the packed records instead of copying them
    workers = min(workers, max(1, len(batches)))
    held = Held(workers)
    loader = DataLoader(
        _Reader(records, how, held, cache),
        batch_size=None,
        sampler=batches,
        num_workers=workers,
        collate_fn=_as_it_is,
        pin_memory=pin_memory,
        **extra,
    )
    return Loader(loader, held, lambda: records.files, cache)


def _as_it_is(item: Any) -> Any:
    return item


def _start_worker(_: int) -> None:
    """One thread per worker; a signal to the whole group is the main process's to answer, after its step."""
    torch.set_num_threads(1)
    for name in _NOT_FOR_WORKERS:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if sys.platform == "linux":
        # However the main process ends: a worker that hangs would not see it, and hold memory for ever.
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
