# SPDX-License-Identifier: Apache-2.0
"""One step and the other in turns, so that what slows the machine slows all contenders."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from detectron_libra.benchmarks.measure import Times
from detectron_libra.builders.benchmark.crew import Hired, hired
from detectron_libra.builders.benchmark.plan import Contender, Order

#: A turn lasts at least so long: after a pause a processor's first moments are slower.
TURN_S = 0.25
#: Seconds of turns of all contenders of a mode together, where the number of rounds is not given.
BUDGET_S = 60.0
FEWEST, MOST = 7, 31
#: Profiled steps: as many as take so long.
PROFILE_S = 1.0
FEWEST_PROFILED, MOST_PROFILED = 3, 11


@dataclass
class Measured:
    """What is known of one contender.

    Attributes:
        times: seconds of a step, one number a turn; numbers at the same place are of the same round.
        peak: bytes, and what they are.
        profile: see ``worker.Worker.profiled``.
        counts, facts: see ``worker.Worker``.
        order: what it was told.
    """

    order: Order
    times: Times = field(default_factory=lambda: Times([]))
    peak: tuple[int, str] = (0, "")
    profile: dict[str, Any] = field(default_factory=dict)
    counts: dict[str, float] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def contender(self) -> Contender:
        return self.order.contender


def measure(
    orders: list[Order],
    *,
    warm_ups: int,
    rounds: int = 0,
    trace: Path | None = None,
    told: Callable[[str], object] = lambda _: None,
) -> list[Measured]:
    """Everything about contenders that take turns.

    Args:
        orders: of one mode, in the order of the result.
        warm_ups: steps of each before any counts.
        rounds: turns of each; 0: as many as BUDGET_S gives, between FEWEST and MOST.
        trace: file for the profile of the first one.
        told: called with a line whenever something begins.
    """
    told(f"starting {len(orders)} processes")
    with hired(orders) as crew:
        steps = {}
        for worker in crew:
            told(f"{worker.contender.title}: {warm_ups} steps to warm up")
            once = [worker.call("turn", 1) for _ in range(warm_ups)]
            steps[worker.contender] = max(1, math.ceil(TURN_S / min(once)))
            worker.call("begin")
        samples = _take_turns(crew, steps, rounds or _rounds(crew, steps), told)
        found: list[Measured] = []
        for worker in crew:
            told(f"{worker.contender.title}: profile")
            one = Measured(worker.order, Times(samples[worker.contender]), worker.call("memory"))
            one.counts, one.facts = worker.call("counts"), worker.call("facts")
            one.profile = worker.call("profiled", _profiled_steps(one), None if found else trace)
            found.append(one)
        return found


def _profiled_steps(found: Measured) -> int:
    return max(FEWEST_PROFILED, min(MOST_PROFILED, int(PROFILE_S / found.times.median)))


def _rounds(crew: list[Hired], steps: dict[Contender, int]) -> int:
    """How many fit the budget, from one turn of each."""
    one = sum(worker.call("turn", steps[worker.contender]) * steps[worker.contender] for worker in crew)
    return max(FEWEST, min(MOST, int(BUDGET_S / one)))


def _take_turns(
    crew: list[Hired], steps: dict[Contender, int], rounds: int, told: Callable[[str], object]
) -> dict[Contender, list[float]]:
    samples: dict[Contender, list[float]] = {worker.contender: [] for worker in crew}
    for number in range(rounds):
        told(f"round {number + 1} of {rounds}")
        # forth and back: nobody always comes after the same one
        for worker in crew if number % 2 == 0 else reversed(crew):
            who = worker.contender
            samples[who].append(worker.call("turn", steps[who]))
    return samples
