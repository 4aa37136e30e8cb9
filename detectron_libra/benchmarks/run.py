# SPDX-License-Identifier: Apache-2.0
"""The benchmark from the first case to the last row."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from detectron_libra.benchmarks import contenders, correct
from detectron_libra.benchmarks.case import Case, Problem, Setup
from detectron_libra.benchmarks.environment import page_faults
from detectron_libra.benchmarks.floor import Machine
from detectron_libra.benchmarks.measure import BUDGET_S, QUICK_BUDGET_S, cold, in_turns
from detectron_libra.benchmarks.memory import peak_extra_bytes
from detectron_libra.benchmarks.row import Row

_log = logging.getLogger(__name__)

#: Spread of ours above which a row is marked.
UNSTEADY = 0.10
#: Shares of the time limit after which nothing new is compiled, and nothing new is begun.
LAST_COMPILE, LAST_CASE = 0.75, 0.95
#: Less than this would leave out what a warm machine compiles.
COMPILE_AT_LEAST_S = 45.0
NO_TIME = "no time left"
NOT_COMPILED = "no torch.compile: switched off, or no time left for it"


@dataclass
class Outcome:
    """What came of a run.

    Attributes:
        rows: measured.
        wrong: a line per case whose kernel is wrong and was not timed.
        left_out: a line per case that the time or the memory left no room for.
        told_not_compiled: whether the log has said so.
    """

    rows: list[Row] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    told_not_compiled: bool = False


def run_cases(
    cases: Sequence[Case],
    setup: Setup,
    machine: Machine,
    *,
    limit_s: float,
    compiles: bool = True,
    progress: Callable[[], object] = lambda: None,
) -> Outcome:
    """Checks and times every case.

    Args:
        cases: in the order of the result.
        setup: device and selection.
        machine: rates for the floor.
        limit_s: seconds for everything. Each case has its share of what is left; contenders that do not fit
            into it are left out, and at the very end cases.
        compiles: whether torch.compile is a contender.
        progress: called after every case.
    """
    outcome, start = Outcome(), time.monotonic()
    rows: dict[int, list[Row]] = {}
    order = sorted(range(len(cases)), key=lambda number: _turn(cases, number))
    for done, number in enumerate(order):
        used = time.monotonic() - start
        share = (limit_s - used) / (len(cases) - done)
        if used > LAST_CASE * limit_s:
            outcome.left_out.append(f"{cases[number].title}: {NO_TIME}")
        else:
            may_compile = compiles and used < LAST_COMPILE * limit_s
            rows[number] = _one_case(cases[number], setup, machine, outcome, share, may_compile)
        progress()
    outcome.rows = [row for number in sorted(rows) for row in rows[number]]
    return outcome


def _turn(cases: Sequence[Case], number: int) -> tuple[bool, int]:
    """Quick cases, those without images, come first: what they leave of their shares goes to the others. Of these
    each operator's first, then each one's second, so that no operator is left without a row."""
    sizes = [case.op for case in cases[:number] if _has_images(case)]
    return _has_images(cases[number]), sizes.count(cases[number].op)


def _has_images(case: Case) -> bool:
    return "x" in case.name.partition(" ")[0]


def _one_case(
    case: Case, setup: Setup, machine: Machine, outcome: Outcome, share_s: float, compiles: bool
) -> list[Row]:
    try:
        problem = case.build()
        right = correct.expected(problem)
        fault = correct.wrong(problem, problem.ours, right)
        if fault:
            outcome.wrong.append(f"{case.title}: wrong kernel, not timed: {fault}")
            return []
        notes = _differing_contenders(case, problem, right)
        del right
        found = {
            which: _one_row(case, problem, which, setup, machine, share_s / len(problem.passes), compiles)
            for which in problem.passes
        }
        outcome.left_out += [f"{case.title} {which}: {NO_TIME}" for which in found if found[which] is None]
        rows = [row for row in found.values() if row is not None]
    except torch.cuda.OutOfMemoryError:
        outcome.left_out.append(f"{case.title}: the device's memory is too small")
        torch.cuda.empty_cache()
        return []
    for row in rows:
        row.notes += notes
        for note in row.notes:
            # Once for all rows: whoever switched it off knows.
            if note != NOT_COMPILED or not outcome.told_not_compiled:
                _log.warning("%s %s: %s", case.title, row.pass_, note)
            outcome.told_not_compiled |= note == NOT_COMPILED
    return rows


def _differing_contenders(case: Case, problem: Problem, right: Sequence[Tensor]) -> list[str]:
    """Notes about comparisons with something that computes another thing."""
    # The usual sampler draws boxes of its own; in half precision the others round between their steps.
    if case.op == "sample_by_iou" or case.dtype != "float32":
        return []
    notes = []
    for name, run in (("eager", problem.eager), (problem.peer_name, problem.peer)):
        if run is not None and run is not problem.expected:
            fault = correct.wrong(problem, run, right, rtol=max(problem.rtol, 1e-2))
            notes += [f"{name} computes something else: {fault}"] if fault else []
    return notes


def _one_row(
    case: Case,
    problem: Problem,
    which: str,
    setup: Setup,
    machine: Machine,
    share_s: float,
    compiles: bool,
) -> Row | None:
    prepare, notes = contenders.WITH[which], []
    runs = {"ours": prepare(problem.ours, problem), "eager": prepare(problem.eager, problem)}
    if problem.peer is not None:
        runs["peer"] = prepare(problem.peer, problem)
    if compiles:
        run, why = contenders.compiled(problem, which, limit_s=max(COMPILE_AT_LEAST_S, share_s))
        if run is not None:
            runs["compile"] = run
        notes += [why] if why else []
    else:
        notes.append(NOT_COMPILED)
    memory = {name: peak_extra_bytes(runs[name], setup.device) for name in ("ours", "eager")}
    faults = page_faults()
    times = in_turns(
        runs, setup.device, budget_s=QUICK_BUDGET_S if setup.quick else BUDGET_S, allowance_s=share_s
    )
    notes += [f"{name} is too slow for the time left" for name in runs.keys() - times.keys()]
    if not times:
        return None
    faults = page_faults() - faults
    ours = times["ours"]
    if ours.spread > UNSTEADY:
        notes.append(f"unsteady: the quartiles of ours are {ours.spread:.0%} of its median apart")
    size, flops = (
        (problem.bytes_fwd, problem.flops_fwd)
        if which == "fwd"
        else (problem.bytes_fwdbwd, problem.flops_fwdbwd)
    )
    median = {name: t.median for name, t in times.items()}
    return Row(
        op=case.op, case=case.name, layout=case.layout, dtype=case.dtype, device=setup.device,
        threads=torch.get_num_threads(), pass_=which, ours_s=median["ours"], eager_s=median.get("eager"),
        compile_s=median.get("compile"), peer=problem.peer_name, peer_s=median.get("peer"),
        floor_s=machine.floor(size, flops), bytes=size, peak_extra_bytes=memory["ours"],
        spread=ours.spread, flops=flops,
        ours_cold_s=cold(runs["ours"]).median if setup.device == "cuda" else None,
        eager_peak_extra_bytes=memory["eager"], page_faults=faults, notes=notes,
    )  # fmt: skip
