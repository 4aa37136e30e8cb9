# SPDX-License-Identifier: Apache-2.0
"""Running a trained detector over a data set."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import nn
from tqdm import tqdm

from detectron_libra.engine.guard import memory_errors_named
from detectron_libra.engine.signals import StopFlag
from detectron_libra.structures import Batch, Detections


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
    told: Callable[[int], None] | None = None,
) -> Detected:
    """Detects the objects in every image of a loader.

    Args:
        model: on ``device``; in eval mode ``model(batch)`` gives the Detections of each image. Is left in the
            mode that it came in.
        loader: batches without targets; with ``len`` for the progress bar, or without.
        device: to compute on.
        precision: ``fp32``, or ``bf16`` for autocast around the model.
        progress: show a bar where stderr is a terminal.
        stop: once it is set, SystemExit is raised.
        told: called after every image with the number of those done, where no bar is shown.

    Returns:
        Detected.

    Raises:
        RunError: out of memory.
        SystemExit: 130 or 143 after ``stop``.
    """
    device, was_training = torch.device(device), model.training
    hidden = not (progress and sys.stderr is not None and sys.stderr.isatty())
    bar = tqdm(loader, desc="test", unit="batch", dynamic_ncols=True, disable=hidden)
    found: dict[int | str, Detections] = {}
    begun = time.perf_counter()
    model.eval()
    try:
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            for batch in bar:
                if stop:
                    raise SystemExit(stop.exit_code)
                with memory_errors_named(batch):
                    results = model(batch.to(device))
                for meta, detections in zip(batch.metas, results, strict=True):
                    found[meta.image_id] = detections.to("cpu")
                    if told and hidden:
                        told(len(found))
    finally:
        model.train(was_training)
    return Detected(found, len(found) / max(time.perf_counter() - begun, 1e-9))
