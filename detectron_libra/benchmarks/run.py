# SPDX-License-Identifier: Apache-2.0
"""The benchmark from the first case to the last row."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch

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
NOT_COMPILED = "no torch.compile: switched off, or no time left for it"


@dataclass
class Outcome:
    """What came of a run.

    Attributes:
        rows: measured.
        wrong: a line per case whose kernel is wrong and was not timed.
        left_out: titles of the cases that the time limit left no room for.
    """

    rows: list[Row] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def run_cases(
    cases: Iterable[Case],
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
        limit_s: seconds for everything; what does not fit is left out and named.
        compiles: whether torch.compile is a contender.
        progress: called after every case.
    """
    outcome, start = Outcome(), time.monotonic()
    for case in cases:
        used = (time.monotonic() - start) / limit_s
        if used > LAST_CASE:
            outcome.left_out.append(case.title)
        else:
            try:
                _one_case(case, setup, machine, outcome, compiles=compiles and used < LAST_COMPILE)
            except torch.cuda.OutOfMemoryError:
                outcome.left_out.append(f"{case.title} (the device's memory is too small)")
                torch.cuda.empty_cache()
        progress()
    return outcome


def _one_case(case: Case, setup: Setup, machine: Machine, outcome: Outcome, *, compiles: bool) -> None:
    problem = case.build()
    fault = correct.wrong(problem)
    if fault:
        outcome.wrong.append(f"{case.title}: wrong kernel, not timed: {fault}")
        _log.error("%s", outcome.wrong[-1])
        return
    notes = []
    for name, run in (("eager", problem.eager), (problem.peer_name, problem.peer)):
        if run is not None and run is not problem.expected and _is_comparable(case, name):
            fault = correct.wrong(problem, run, rtol=max(problem.rtol, 1e-2))
            notes += [f"{name} computes something else: {fault}"] if fault else []
    for which in problem.passes:
        row = _one_row(case, problem, which, setup, machine, compiles=compiles)
        row.notes += notes
        for note in row.notes:
            # Once for all rows: whoever switched it off knows.
            if note != NOT_COMPILED or note not in (n for r in outcome.rows for n in r.notes):
                _log.warning("%s %s: %s", case.title, which, note)
        outcome.rows.append(row)


def _is_comparable(case: Case, contender: str | None) -> bool:
    """Not where the usual formulation draws boxes of its own, or rounds between its steps to half precision."""
    return case.op != "sample_by_iou" and case.dtype == "float32"


def _one_row(
    case: Case, problem: Problem, which: str, setup: Setup, machine: Machine, *, compiles: bool
) -> Row:
    prepare, notes = contenders.WITH[which], []
    runs = {"ours": prepare(problem.ours, problem), "eager": prepare(problem.eager, problem)}
    if problem.peer is not None:
        runs["peer"] = prepare(problem.peer, problem)
    if compiles:
        run, why = contenders.compiled(problem, which)
        if run is not None:
            runs["compile"] = run
        notes += [why] if why else []
    else:
        notes.append(NOT_COMPILED)
    memory = {name: peak_extra_bytes(runs[name], setup.device) for name in ("ours", "eager")}
    faults = page_faults()
    times = in_turns(runs, setup.device, budget_s=QUICK_BUDGET_S if setup.quick else BUDGET_S)
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
        threads=torch.get_num_threads(), pass_=which, ours_s=median["ours"], eager_s=median["eager"],
        compile_s=median.get("compile"), peer=problem.peer_name, peer_s=median.get("peer"),
        floor_s=machine.floor(size, flops), bytes=size, peak_extra_bytes=memory["ours"],
        spread=ours.spread, flops=flops,
        ours_cold_s=cold(runs["ours"]).median if setup.device == "cuda" else None,
        eager_peak_extra_bytes=memory["eager"], page_faults=faults, notes=notes,
    )  # fmt: skip
