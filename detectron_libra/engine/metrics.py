# SPDX-License-Identifier: Apache-2.0
"""What a training run says about itself: medians over the last steps, as JSON lines and as lines to read."""

from __future__ import annotations

import logging
import math
import resource
import sys
from collections import deque
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from detectron_libra.engine.json_stats import json_stats
from detectron_libra.engine.jsonl import JsonLines
from detectron_libra.logs import FOR_PROGRAMS

log = logging.getLogger(__name__)
#: The logger of Detectron's ``json_stats`` lines, so that a tool can keep them off the screen.
stats_log = logging.getLogger(FOR_PROGRAMS)

# Steps that a median or a mean is taken over: Detectron's TrainingStats.
WINDOW = 20
MIB = 2**20


class Window:
    """The last values of each quantity. Tensors stay on their device until a median is asked for."""

    def __init__(self) -> None:
        self._values: dict[str, deque[Tensor | float]] = {}

    def add(self, values: Mapping[str, Tensor | float]) -> None:
        """Takes 0-d tensors or numbers."""
        for name, value in values.items():
            value = value.detach() if torch.is_tensor(value) else value
            self._values.setdefault(name, deque(maxlen=WINDOW)).append(value)

    def medians(self) -> dict[str, float]:
        """The median of each quantity, over the steps where it is finite if there are any."""
        state = self.state().items()
        return {name: median([v for v in values if math.isfinite(v)] or values) for name, values in state}

    def state(self) -> dict[str, list[float]]:
        """The values as numbers, for a checkpoint."""
        self._fetch()
        return {name: [float(v) for v in values] for name, values in self._values.items()}

    def load(self, state: Mapping[str, list[float]]) -> None:
        """Goes on from what ``state`` gave."""
        self._values = {name: deque(values, maxlen=WINDOW) for name, values in state.items()}

    def _fetch(self) -> None:
        # one transfer for all values instead of one, and a wait for the device, for each
        places = [
            (values, i)
            for values in self._values.values()
            for i, v in enumerate(values)
            if torch.is_tensor(v)
        ]
        if places:
            numbers = torch.stack([torch.as_tensor(values[i]).float() for values, i in places]).tolist()
            for (values, i), number in zip(places, numbers, strict=True):
                values[i] = number


class Metrics:
    """Collects the numbers of every step, and reports them every few.

    Args:
        path: of metrics.jsonl.
        start_iteration, max_iter: the range of the run.
        period: iterations between reports.
        device: of the model, for the memory in use.
        window: state of a checkpoint's window.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        start_iteration: int,
        max_iter: int,
        period: int,
        device: torch.device,
        window: Mapping[str, list[float]] | None = None,
    ) -> None:
        self.window = Window()
        self.window.load(window or {})
        self._pace: deque[tuple[int, float, float, int]] = deque(maxlen=WINDOW)
        self._file = JsonLines(path, start_iteration)
        self._max_iter, self._period, self._device = max_iter, period, device
        self._on_screen = sys.stderr is not None and sys.stderr.isatty()
        self._bar = tqdm(
            total=max_iter,
            initial=start_iteration,
            desc="train",
            unit="it",
            dynamic_ncols=True,
            disable=not self._on_screen,
        )

    def step(
        self,
        iteration: int,
        lr: float,
        values: Mapping[str, Tensor | float],
        *,
        images: int,
        seconds: float,
        waited: float,
        queued: int = 0,
    ) -> None:
        """Takes the numbers of one iteration; reports where one is due.

        Args:
            iteration: counted from 0.
            lr: learning rate of the step.
            values: losses and metrics, 0-d tensors of any device or numbers.
            images: in the batch.
            seconds: the whole step took, ``waited`` of them for the batch.
            queued: batches that lay ready when the step asked for one.
        """
        self.window.add(values)
        self._pace.append((images, seconds, waited, queued))
        self._bar.update()
        if iteration % self._period == 0 or iteration == self._max_iter - 1:
            self._report(iteration, lr)

    def note(self, iteration: int, record: Mapping[str, Any]) -> None:
        """Adds a line of its own to metrics.jsonl, such as the result of an evaluation."""
        self._file.append({"iter": iteration, **record})

    def close(self) -> None:
        """Ends the progress bar."""
        self._bar.close()

    def _report(self, iteration: int, lr: float) -> None:
        images, seconds, waited, _ = (sum(column) for column in zip(*self._pace, strict=True))
        time = seconds / len(self._pace)
        stats: dict[str, Any] = {"iter": iteration, "lr": lr, **self.window.medians()}
        stats["images_per_s"] = images / seconds
        stats["data_time"] = waited / seconds
        stats["time"] = time
        stats["eta"] = str(timedelta(seconds=int(time * (self._max_iter - 1 - iteration))))
        stats["mb_qsize"] = round(median(queued for *_, queued in self._pace))
        stats["mem"] = memory_mib(self._device)
        self._file.append(stats)
        stats_log.info("%s", json_stats(stats))
        losses = {name[5:]: f"{stats[name]:.3g}" for name in stats if name.startswith("loss_")}
        self._bar.set_postfix(
            {"loss": f"{stats['loss']:.3g}", **losses, "images/s": f"{images / seconds:.1f}"}
        )
        if not self._on_screen:
            log.info("%s", summary(stats, self._max_iter))


def summary(stats: Mapping[str, Any], max_iter: int) -> str:
    """One line to read."""
    parts = ", ".join(f"{name[5:]} {stats[name]:.3g}" for name in stats if name.startswith("loss_"))
    return (
        f"iter {stats['iter'] + 1}/{max_iter}  loss {stats['loss']:.4g} ({parts})  lr {stats['lr']:.3g}  "
        f"{stats['images_per_s']:.1f} images/s  data {stats['data_time']:.0%}  eta {stats['eta']}  "
        f"mem {stats['mem']} MiB"
    )


def memory_mib(device: torch.device) -> int:
    """The most memory that the run held so far, on the device or, for a CPU, in the process; in MiB."""
    if device.type == "cuda":
        return math.ceil(torch.cuda.max_memory_allocated(device) / MIB)
    unit = 1 if sys.platform == "darwin" else 1024
    return math.ceil(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MIB)
