# SPDX-License-Identifier: Apache-2.0
"""From the events of torch's profiler to the share of each part of a step, its backward pass included.

An operation of the forward pass belongs to the innermost range around it. A node of the backward pass belongs where
the operation that made it does: the profiler gives both the same sequence number. What accumulates the gradient of a
weight has no such number and belongs to the node that ran just before it, whose gradient it takes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

from torch.autograd import DeviceType

from detectron_libra.builders.benchmark.ranges import PREFIX, SHARE_OF, SHARES, STEP

#: How autograd names a node that it runs.
NODE = "autograd::engine::evaluate_function: "
#: On the accumulation of gradients, and where no gradient is asked for: no sequence number.
HIGHEST_SEQUENCE = 2**62


def seconds_of_parts(events: Iterable[Any], *, device: str) -> dict[str, float]:
    """Seconds of every part in all profiled steps together.

    Args:
        events: of ``torch.profiler.profile``, each step inside of a range STEP.
        device: "cpu": time of the thread that computes; "cuda": time of the kernels, and "other" is what is left of
            the steps.

    Returns:
        Part -> seconds; the sum is the time of the steps.
    """
    on_host = [event for event in events if event.device_type == DeviceType.CPU]
    steps = [event for event in on_host if event.name == STEP]
    total = sum(event.cpu_time_total for event in steps)
    # on a GPU the backward pass runs in a thread of its own
    roots = steps if device == "cpu" else [event for event in on_host if event.cpu_parent is None]
    own = _own_cpu if device == "cpu" else _own_cuda
    makers, before = _makers(on_host), "other"
    spent: dict[str, float] = defaultdict(float)
    for root in sorted(roots, key=_start):
        before = _walk(root, before, makers, own, spent)
    spent["other"] += total - sum(spent.values())
    return {part: microseconds / 1e6 for part, microseconds in spent.items()}


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
    return event.self_device_time_total
