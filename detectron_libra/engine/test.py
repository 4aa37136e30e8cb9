# SPDX-License-Identifier: Apache-2.0
"""Running a trained detector over a data set."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import NamedTuple

import torch
from torch import nn
from tqdm import tqdm

from detectron_libra.engine.guard import memory_errors_named, worker_errors_named
from detectron_libra.engine.signals import StopFlag
from detectron_libra.modeling.merging import Merging, merge
from detectron_libra.modeling.suppression import Candidates, best_detections
from detectron_libra.structures import Batch, Detections, ImageMeta


class Detected(NamedTuple):
    """Detections by image id, on the CPU; images per second, of the whole loop."""

    detections: dict[int | str, Detections]
    images_per_s: float


def detect(
    model: nn.Module,
    loader: Iterable[Batch],
    *,
    device: torch.device | str = "cpu",
    precision: str = "fp32",
    progress: bool = True,
    stop: StopFlag | None = None,
    merging: Merging | None = None,
    told: Callable[[int], None] | None = None,
) -> Detected:
    """Detects the objects in every image of a loader.

    Args:
        model: on ``device``; in eval mode ``model(batch)`` gives the Detections of each image. With ``merging``
            it needs ``candidates`` and ``detection``, as our detectors have them. Is left in the mode that it
            came in.
        loader: batches without targets; with ``len`` for the progress bar, or without.
        device: to compute on.
        precision: ``fp32``, or ``bf16`` for autocast around the model.
        progress: show a bar where stderr is a terminal.
        stop: once it is set, SystemExit is raised.
        merging: the loader gives so many batches, one view each, of the same images one after another, and this
            is how they are merged; None: every image comes once.
        told: called after every image with the number of those done, where no bar is shown.

    Returns:
        Detected.

    Raises:
        RunError: out of memory, or a worker that died or hangs.
        SystemExit: 129, 130 or 143 after ``stop``.
    """
    device, was_training = torch.device(device), model.training
    hidden = not (progress and sys.stderr is not None and sys.stderr.isatty())
    bar = tqdm(loader, desc="test", unit="batch", dynamic_ncols=True, disable=hidden)
    found: dict[int | str, Detections] = {}
    begun = time.perf_counter()
    model.eval()
    try:
        low = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
        with worker_errors_named(loader), torch.inference_mode(), low:
            batches = _until(stop, bar)
            results = _merged(model, batches, device, merging) if merging else _plain(model, batches, device)
            for meta, detections in results:
                found[meta.image_id] = detections.to("cpu")
                if told and hidden:
                    told(len(found))
    finally:
        model.train(was_training)
    return Detected(found, len(found) / max(time.perf_counter() - begun, 1e-9))


def _until(stop: StopFlag | None, batches: Iterable[Batch]) -> Iterator[Batch]:
    for batch in batches:
        if stop:
            raise SystemExit(stop.exit_code)
        yield batch


def _plain(
    model: nn.Module, batches: Iterable[Batch], device: torch.device
) -> Iterator[tuple[ImageMeta, Detections]]:
    """Each image, and what was found in it."""
    for batch in batches:
        with memory_errors_named(batch):
            results = model(batch.to(device))
        yield from zip(batch.metas, results, strict=True)


def _merged(
    model: nn.Module, batches: Iterator[Batch], device: torch.device, merging: Merging
) -> Iterator[tuple[ImageMeta, Detections]]:
    """Each image, and what was found in its views together; suppression comes once, at the end."""
    for first in batches:
        found: list[list[Candidates]] = []
        # only the detector of stored proposals has rows that can be averaged
        options = {"every": True} if merging.needs_every_candidate else {}
        for batch in chain([first], islice(batches, merging.views - 1)):
            with memory_errors_named(batch):
                found.append(model.candidates(batch.to(device), **options))
        rule = model.detection
        with memory_errors_named(first):
            results = [
                best_detections(merge(views, merging, score_threshold=rule.score_threshold), rule)
                for views in zip(*found, strict=True)
            ]
        yield from zip(first.metas, results, strict=True)
