# SPDX-License-Identifier: Apache-2.0
"""Whether a contender computes what it should: values, and gradients where there are some."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from detectron_libra.benchmarks.case import Problem, Run
from detectron_libra.ops import backend


def as_list(out: Tensor | Sequence[Tensor]) -> list[Tensor]:
    """Outputs of a contender."""
    return [out] if isinstance(out, Tensor) else list(out)


def arriving_gradients(outputs: Sequence[Tensor]) -> list[Tensor]:
    """What a backward pass begins with: 1 for a loss, else numbers between 1 and 2, different in each element."""
    return [torch.ones_like(o) if o.dim() == 0 else _uneven(o) for o in outputs]


def both_passes(run: Run, problem: Problem) -> list[Tensor]:
    """Outputs, and the gradients of the leaves."""
    outputs = as_list(run(*problem.inputs))
    if not problem.leaves:
        return outputs
    grads = torch.autograd.grad(outputs, problem.leaves, arriving_gradients(outputs))
    return [*(o.detach() for o in outputs), *grads]


def expected(problem: Problem) -> list[Tensor]:
    """What `both_passes` of a right contender gives."""
    if problem.expected is not None:
        return both_passes(problem.expected, problem)
    return _by_reference(lambda: both_passes(problem.ours, problem))


def wrong(problem: Problem, run: Run, right: Sequence[Tensor], *, rtol: float | None = None) -> str | None:
    """What differs from what is expected, None where nothing does.

    Args:
        problem: one case.
        run: the contender.
        right: `expected(problem)`.
        rtol: instead of the problem's.
    """
    got = both_passes(run, problem)
    if len(got) != len(right):
        return f"{len(got)} outputs and gradients instead of {len(right)}"
    for number, (g, e) in enumerate(zip(got, right, strict=True)):
        difference = _difference(problem, g, e, problem.rtol if rtol is None else rtol)
        if difference:
            return f"output or gradient {number}: {difference}"
    return None


def _difference(problem: Problem, got: Tensor, expected: Tensor, rtol: float) -> str | None:
    if got.shape != expected.shape:
        return f"shape {tuple(got.shape)} instead of {tuple(expected.shape)}"
    if not expected.is_floating_point():
        off = int((got != expected).sum())
        return f"{off} of {got.numel()} elements differ" if off > problem.mismatch * got.numel() else None
    error = (got.float() - expected.float()).abs_()
    limit = problem.atol + rtol * expected.float().abs()
    # Also where one of them is no number.
    bad = ~(error <= limit)
    if not bad.any():
        return None
    return f"{int(bad.sum())} of {got.numel()} elements differ, by up to {float(error.nan_to_num(torch.inf).max()):.3g}"


def _uneven(like: Tensor) -> Tensor:
    steps = torch.arange(like.numel(), dtype=torch.float32, device=like.device)
    values = (1 + (steps * 0.618034) % 1).reshape(like.shape).to(like.dtype)
    return torch.empty_like(like, requires_grad=False).copy_(values)  # the memory format of the output


def _by_reference(run: Callable[[], list[Tensor]]) -> list[Tensor]:
    before = backend.get_backend()
    backend.set_backend("reference")
    try:
        return run()
    finally:
        backend.set_backend(before)
