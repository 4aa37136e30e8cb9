# SPDX-License-Identifier: Apache-2.0
"""Time and memory of a work at each of its sizes."""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Callable
from statistics import median

from detectron_libra.benchmarks.memory import peak_extra_bytes
from detectron_libra.builders.growth.curve import OBJECTS, Curve, Point, Work

#: A work is repeated until it has taken so many seconds, within these numbers of runs.
ENOUGH_S, FEWEST, MOST = 1.0, 3, 9
#: One that takes longer is run once, its first time.
LONG_S = 4.0


def measure(work: Work, *, quick: bool = False, tell: Callable[[str, Point], None]) -> Curve:
    """A work at all of its sizes.

    Args:
        quick: one run each, to see that everything works.
        tell: called with the name and each point.
    """
    points = []
    for size in work.sizes:
        run = work.prepare(size)
        seconds, runs = timed(run, quick=quick)
        points.append(Point(size, seconds, memory_of(run, work.memory), runs))
        tell(work.name, points[-1])
        del run
        gc.collect()
    return Curve(work.name, tuple(points), work.memory, work.exempt)


def timed(run: Callable[[], object], *, quick: bool = False) -> tuple[float, int]:
    """Seconds of processor time, median over the runs after the first, and how many; of a long one the first counts.

    Processor time is what a run takes on one thread of an idle machine, whatever else this one does meanwhile.
    """
    first = _once(run)
    if quick or first > LONG_S:
        return first, 1
    times: list[float] = []
    while len(times) < FEWEST or (sum(times) < ENOUGH_S and len(times) < MOST):
        times.append(_once(run))
    return median(times), len(times)


def memory_of(run: Callable[[], object], where: str) -> int | None:
    """Most bytes at once during a run beyond those before it, its result included; see ``curve.OBJECTS``."""
    if where != OBJECTS:
        return peak_extra_bytes(run, "cpu")
    gc.collect()
    tracemalloc.start()
    try:
        kept = run()
        peak = tracemalloc.get_traced_memory()[1]
        del kept
    finally:
        tracemalloc.stop()
    return peak


def _once(run: Callable[[], object]) -> float:
    begun = time.process_time()
    kept = run()
    seconds = time.process_time() - begun
    del kept
    return seconds
