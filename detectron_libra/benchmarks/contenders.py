# SPDX-License-Identifier: Apache-2.0
"""The functions that a row compares: ours, eager, torch.compile of it, a peer's, each with or without backward."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from detectron_libra.benchmarks.case import Problem, Run
from detectron_libra.benchmarks.correct import arriving_gradients, as_list


def forward(run: Run, problem: Problem) -> Callable[[], object]:
    """The forward pass as at inference, nothing kept for a backward pass."""

    def call():
        with torch.no_grad():
            return run(*problem.inputs)

    return call


def forward_backward(run: Run, problem: Problem) -> Callable[[], object]:
    """Both passes, as a training step has them; gradients are returned and not added up."""
    arriving = arriving_gradients(as_list(run(*problem.inputs)))
    leaves = problem.leaves

    def call():
        return torch.autograd.grad(as_list(run(*problem.inputs)), leaves, arriving)

    return call


WITH = {"fwd": forward, "fwdbwd": forward_backward}


def compiled(
    problem: Problem, which: str, *, limit_s: float
) -> tuple[Callable[[], object] | None, str | None]:
    """(torch.compile of eager, warm, None) or (None, why there is none); given up after limit_s."""
    if not problem.compiles:
        return None, "no torch.compile: a loop whose length depends on the data"
    torch._dynamo.reset()  # its limit of recompilations is per function, and would fall back to eager
    run = torch.compile(problem.eager)
    try:
        with time_limit(limit_s):
            call = WITH[which](run, problem)
            call()
    except TimeoutError:
        return None, f"no torch.compile: more than {limit_s:.0f} s"
    except Exception as e:  # whatever its compilers raise, the other columns stand
        return None, f"no torch.compile: {type(e).__name__}: {(str(e).splitlines() or [''])[0][:100]}"
    return call, None


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raises TimeoutError inside the block after so long, where signals can do that."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def stop(*_):
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
