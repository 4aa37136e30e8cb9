# SPDX-License-Identifier: Apache-2.0
"""How much memory a call needs beyond what was there before it, its results included."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch


def peak_extra_bytes(run: Callable[[], object], device: str) -> int | None:
    """Most bytes alive at once during run(), less those alive before; None where torch cannot tell.

    On a CPU these are the tensors that torch's allocator gives out: working memory that a kernel takes from the
    C++ library is not seen.
    """
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    return _cpu_peak(run)


def _cpu_peak(run: Callable[[], object]) -> int | None:
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True, record_shapes=False
    ) as profile:
        kept = run()
    del kept
    results: Any = getattr(profile.profiler, "kineto_results", None)
    if results is None or not hasattr(results, "experimental_event_tree"):
        return None
    alive = peak = 0
    for event in sorted(_allocations(results.experimental_event_tree()), key=lambda e: e.start_time_ns):
        alive += event.extra_fields.alloc_size
        peak = max(peak, alive)
    return peak


def _allocations(tree: Iterable[Any]) -> Iterable[Any]:
    """Every event of the allocator, positive or negative, at any depth."""
    todo = list(tree)
    while todo:
        event = todo.pop()
        todo.extend(event.children)
        if type(event.extra_fields).__name__ == "_ExtraFields_Allocation":
            yield event
