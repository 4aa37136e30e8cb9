# SPDX-License-Identifier: Apache-2.0
"""From the events of torch's profiler to the share of each part of a step, its backward pass included.

An operation of the forward pass belongs to the innermost range around it. A node of the backward pass belongs where
the operation that made it does: the profiler gives both the same sequence number. What accumulates the gradient of a
weight has no such number and belongs to the node that ran just before it, whose gradient it takes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from statistics import median
from typing import Any

from torch.autograd import DeviceType

from detectron_libra.builders.benchmark.ranges import PREFIX, SHARE_OF, SHARES, STEP

#: How autograd names a node that it runs.
NODE = "autograd::engine::evaluate_function: "
#: On the accumulation of gradients, and where no gradient is asked for: no sequence number.
HIGHEST_SEQUENCE = 2**62


def seconds_of_parts(events: Iterable[Any], *, device: str) -> dict[str, float]:
    """Seconds of every part of a step: the median of the profiled steps, part by part.

    A part that the system interrupts in one step is as it should be in the others.

    Args:
        events: of ``torch.profiler.profile``, each step inside of a range STEP.
        device: "cpu": time of the thread that computes; "cuda": time of the kernels, and "other" is what is left of
            the step.

    Returns:
        Part -> seconds.
    """
    on_host = [event for event in events if event.device_type == DeviceType.CPU]
    makers = _makers(on_host)
    steps = [_one_step(e, on_host, makers, device) for e in on_host if e.name == STEP]
    parts = sorted({part for step in steps for part in step})
    return {part: median(step.get(part, 0.0) for step in steps) / 1e6 for part in parts}


def _one_step(step: Any, on_host: Iterable[Any], makers: dict[int, str], device: str) -> dict[str, float]:
    """Microseconds of every part of one step, which are all of it."""
    roots = [step] if device == "cpu" else _roots_during(step, on_host)
    own = _own_cpu if device == "cpu" else _own_cuda
    before = "other"
    spent: dict[str, float] = defaultdict(float)
    for root in roots:
        before = _walk(root, before, makers, own, spent)
    spent["other"] += step.cpu_time_total - sum(spent.values())
    return spent


def _roots_during(step: Any, events: Iterable[Any]) -> list[Any]:
    """The outermost events of all threads: on a GPU the backward pass runs in one of its own."""
    span = step.time_range
    inside = (e for e in events if e.cpu_parent is None and span.start <= _start(e) <= span.end)
    return sorted(inside, key=_start)


def shares(parts: dict[str, float]) -> dict[str, float]:
    """Share of each of SHARES in the whole; they add up to 1."""
    total = sum(parts.values())
    found = dict.fromkeys(SHARES, 0.0)
    for part, seconds in parts.items():
        found[SHARE_OF[part]] += seconds / total
    return found


def _makers(events: Iterable[Any]) -> dict[int, str]:
    """Sequence number -> part of the operation that made the node.

    Operations without a node carry the number that the next node will get: the last one with a number made it.
    """
    last: dict[int, Any] = {}
    for event in events:
        number = event.sequence_nr
        if not 0 <= number < HIGHEST_SEQUENCE or _in_backward(event):
            continue
        if number not in last or _start(event) >= _start(last[number]):
            last[number] = event
    return {number: _part_around(event) for number, event in last.items()}


def _in_backward(event: Any) -> bool:
    while event is not None:
        if event.name.startswith(NODE):
            return True
        event = event.cpu_parent
    return False


def _part_around(event: Any) -> str:
    while event is not None:
        if event.name.startswith(PREFIX):
            return "other" if event.name == STEP else event.name.removeprefix(PREFIX)
        event = event.cpu_parent
    return "other"


def _walk(
    root: Any,
    before: str,
    makers: dict[int, str],
    own: Callable[[Any], float],
    spent: dict[str, float],
) -> str:
    """Adds the own time of an event and of all events inside of it to their parts.

    ``before``: part of the last node of the backward pass so far; the last one now is returned.
    """
    todo = [(root, "other")]
    while todo:
        event, part = todo.pop()
        if event.name.startswith(NODE):
            part = before = makers.get(event.sequence_nr, before)
        elif event.name.startswith(PREFIX) and event.name != STEP:
            part = event.name.removeprefix(PREFIX)
        spent[part] += own(event)
        inside = sorted(event.cpu_children, key=_start, reverse=True)
        todo += [(child, part) for child in inside]  # the first one is taken off first
    return before


def _start(event: Any) -> float:
    return event.time_range.start


def _own_cpu(event: Any) -> float:
    return event.self_cpu_time_total


def _own_cuda(event: Any) -> float:
    # a range launches no kernel; the profiler may give it the time of all those inside of it once more
    is_range = event.is_user_annotation or event.name.startswith(PREFIX)
    return 0.0 if is_range else event.self_device_time_total
