# SPDX-License-Identifier: Apache-2.0
"""Time and memory of the works on an axis at each of their sizes."""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Callable
from statistics import median

from detectron_libra.benchmarks.memory import peak_extra_bytes
from detectron_libra.builders.growth.curve import OBJECTS, Axis, Curve, Point

#: A work is repeated until it has taken so many seconds, within these numbers of runs.
ENOUGH_S, FEWEST, MOST = 1.0, 3, 9
#: One that takes longer is run once, its first time.
LONG_S = 4.0
#: Memory is counted of what takes no longer.
MEMORY_S = 30.0


def measure(
    axis: Axis,
    *,
    quick: bool = False,
    memory_s: float = MEMORY_S,
    tell: Callable[[str, Point], None],
) -> list[Curve]:
    """Everything on an axis, size by size, so that works which need the same things find them made.

    Args:
        axis: all of its works have the same sizes.
        quick: one run each, to see that everything works.
        memory_s: memory is counted of what takes no more seconds, since counting takes several times as long.
        tell: called with the name of a work and each point.
    """
    points: dict[str, list[Point]] = {work.name: [] for work in axis.works}
    for number in range(len(axis.works[0].sizes)):
        for work in axis.works:
            run = work.prepare(work.sizes[number])
            seconds, runs = timed(run, quick=quick)
            memory = memory_of(run, work.memory) if seconds <= memory_s else None
            points[work.name].append(Point(work.sizes[number], seconds, memory, runs))
            tell(work.name, points[work.name][-1])
            del run
            gc.collect()
    return [Curve(work.name, tuple(points[work.name]), work.memory, work.exempt) for work in axis.works]


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
