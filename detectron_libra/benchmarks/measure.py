# SPDX-License-Identifier: Apache-2.0
"""Seconds of several functions, taken in turns, so that what slows the machine slows all of them."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

#: Before it the allocator still asks the system for memory, and torch.compile may compile again.
WARM_UPS = 8
#: A sample lasts at least this long, so that the clock is no share of it.
SAMPLE_S = 0.005
#: Seconds of samples per contender and row; a slow one gets FEWEST samples however long they take.
BUDGET_S, QUICK_BUDGET_S = 0.6, 0.03
FEWEST, MOST = 5, 41
MOST_CALLS = 2000
OURS_ALLOWANCE = 2
#: Larger than any last-level cache of a GPU.
FLUSH_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Times:
    """Seconds of one call, one number a sample.

    Attributes:
        samples: at least FEWEST.
    """

    samples: list[float]

    @property
    def median(self) -> float:
        return quantile(self.samples, 0.5)

    @property
    def spread(self) -> float:
        """Distance of the quartiles as a share of the median."""
        return (quantile(self.samples, 0.75) - quantile(self.samples, 0.25)) / self.median


def quantile(values: list[float], share: float) -> float:
    """Linear interpolation between the sorted values."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def in_turns(
    contenders: dict[str, Callable[[], object]],
    device: str,
    *,
    budget_s: float = BUDGET_S,
    allowance_s: float = math.inf,
) -> dict[str, Times]:
    """Times of each contender: WARM_UPS calls, then samples of one and the other alternately.

    Args:
        contenders: functions by name, ours first.
        device: "cpu" or "cuda".
        budget_s: of samples, for each.
        allowance_s: one that would need more for warm-ups and the fewest samples is left out; the first one, if
            it would need OURS_ALLOWANCE times more, and with it all.
    """
    calls, samples = {}, {}
    for number, (name, run) in enumerate(contenders.items()):
        once = _warm_up(run, device, allowance_s if number else OURS_ALLOWANCE * allowance_s)
        if once is None and number == 0:
            return {}
        if once is None:
            continue
        calls[name] = max(1, min(MOST_CALLS, math.ceil(SAMPLE_S / once)))
        samples[name] = max(FEWEST, min(MOST, int(budget_s / (once * calls[name]))))
    taken: dict[str, list[float]] = {name: [] for name in calls}
    rounds = max(samples.values())
    collecting = gc.isenabled()
    gc.disable()
    try:
        for turn in range(rounds):
            for name in calls:
                # As many turns as it has samples, spread evenly over all rounds.
                if (turn + 1) * samples[name] // rounds > turn * samples[name] // rounds:
                    taken[name].append(_seconds(contenders[name], calls[name], device))
    finally:
        if collecting:
            gc.enable()
    return {name: Times(values) for name, values in taken.items()}


def _warm_up(run: Callable[[], object], device: str, allowance_s: float) -> float | None:
    """Seconds of the fastest of the first calls; None where it is too slow to go on."""
    times: list[float] = []
    for done in range(WARM_UPS):
        times.append(_seconds(run, 1, device))
        # The first call may be slow for reasons of its own, but not by this factor.
        typical = min(times) if done else times[0] / 4
        if sum(times) + typical * (WARM_UPS - 1 - done + FEWEST) > allowance_s:
            return None
    return min(times)


def cold(run: Callable[[], object], samples: int = 15) -> Times:
    """CUDA only: times of single calls that find nothing in the last-level cache."""
    rubbish = torch.empty(FLUSH_BYTES, dtype=torch.uint8, device="cuda")
    taken = []
    for _ in range(samples):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        rubbish.zero_()
        begin.record()
        run()
        end.record()
        end.synchronize()
        taken.append(begin.elapsed_time(end) / 1e3)
    return Times(taken)


def _seconds(run: Callable[[], object], calls: int, device: str) -> float:
    """Seconds of one call, as the mean of so many."""
    if device == "cuda":
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize()
        begin.record()
        for _ in range(calls):
            run()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1e3 / calls
    start = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - start) / calls
