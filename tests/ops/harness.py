# SPDX-License-Identifier: Apache-2.0
"""The checks that every operator gets: a test file names its cases, what must hold for all stands here."""

import os
from collections.abc import Callable, Iterator, Sequence

import pytest
import torch
from torch import Tensor
from torch.library import opcheck

from detectron_libra.ops import backend

REQUIRE_CUDA = os.getenv("REQUIRE_CUDA") == "1"
needs_kernels = pytest.mark.skipif(not backend.is_built(), reason="kernels are not built; run `make build`")


@pytest.fixture(params=["cpu", "cuda"])
def device(request) -> str:
    """Each device in turn; without a GPU the second is skipped, or fails where REQUIRE_CUDA=1."""
    if request.param == "cuda" and not torch.cuda.is_available():
        if REQUIRE_CUDA:
            pytest.fail("REQUIRE_CUDA=1, and torch sees no GPU")
        pytest.skip("no GPU")
    return request.param


@pytest.fixture(params=["compiled", "reference"])
def each_backend(request) -> Iterator[str]:
    """The kernels and the definition in turn: what a test says of one binds the other."""
    if request.param == "compiled" and not backend.is_built():
        pytest.skip("kernels are not built; run `make build`")
    before = backend.get_backend()
    backend.set_backend(request.param)
    yield request.param
    backend.set_backend(before)


def with_backend(name: str, run: Callable):
    """run() under the backend of that name, the earlier one restored."""
    before = backend.get_backend()
    backend.set_backend(name)
    try:
        return run()
    finally:
        backend.set_backend(before)


def value_and_gradients(run: Callable, inputs: Sequence[Tensor]) -> list[Tensor]:
    """run(*inputs), a tensor or a tuple of them, and the gradients of a fixed, uneven combination."""
    leaves = [t.detach().clone().requires_grad_(t.is_floating_point()) for t in inputs]
    out = run(*leaves)
    outputs = list(out) if isinstance(out, (tuple, list)) else [out]
    total = sum((o.double() * uneven(o)).sum() for o in outputs)
    wanted = [leaf for leaf in leaves if leaf.requires_grad]
    return [o.detach() for o in outputs] + list(torch.autograd.grad(total, wanted))


def uneven(like: Tensor) -> Tensor:
    """Weights between 1 and 2, different from element to element: a transposed gradient shows."""
    steps = torch.arange(like.numel(), dtype=torch.float64, device=like.device)
    return (1 + (steps * 0.618034) % 1).reshape(like.shape)


def check_against_reference(run: Callable, inputs: Sequence[Tensor], **tolerance) -> None:
    """Value and gradients of the kernel are those of the reference."""
    got = with_backend("compiled", lambda: value_and_gradients(run, inputs))
    expected = with_backend("reference", lambda: value_and_gradients(run, inputs))
    for g, e in zip(got, expected, strict=True):
        torch.testing.assert_close(g, e, **tolerance)


def check_gradients(run: Callable, inputs: Sequence[Tensor]) -> None:
    """Analytic gradients of the kernel against finite differences, in float64."""
    leaves = [t.detach().double().requires_grad_() for t in inputs]
    assert torch.autograd.gradcheck(run, leaves)


def check_op(op, args: tuple) -> None:
    """Schema, fake kernel (shapes, strides, dtypes) and autograd registration of one operator."""
    opcheck(op, args)


def check_repeats(run: Callable, inputs: Sequence[Tensor]) -> None:
    """Equal bits in value and gradients from run to run and for one thread or several."""
    first = value_and_gradients(run, inputs)
    threads = torch.get_num_threads()
    for count in (threads, 1, 3):
        torch.set_num_threads(count)
        try:
            again = value_and_gradients(run, inputs)
        finally:
            torch.set_num_threads(threads)
        for a, b in zip(first, again, strict=True):
            assert torch.equal(a, b), f"differs with {count} threads"


def check_compiles(run: Callable, inputs: Sequence[Tensor], **tolerance) -> None:
    """torch.compile takes it in one graph, and gives the same value and gradients."""
    torch._dynamo.reset()
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    for g, e in zip(value_and_gradients(compiled, inputs), value_and_gradients(run, inputs), strict=True):
        torch.testing.assert_close(g, e, **tolerance)


def check_autocast_runs_in_float32(run: Callable, inputs: Sequence[Tensor], dtype: torch.dtype) -> None:
    """Under autocast, half-precision inputs are computed, and returned, in float32."""
    halves = [t.to(dtype) if t.is_floating_point() else t for t in inputs]
    with torch.autocast(inputs[0].device.type, dtype):
        got = run(*halves)
    expected = run(*[t.float() if t.is_floating_point() else t for t in halves])
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, expected)


def layouts(t: Tensor) -> dict[str, Tensor]:
    """The same (N, C, H, W) numbers in the memory orders that a kernel must read."""
    holes = t.new_zeros(t.shape[0], t.shape[1], t.shape[2], 2 * t.shape[3])[..., ::2]
    holes.copy_(t)
    return {
        "contiguous": t,
        "channels_last": t.contiguous(memory_format=torch.channels_last),
        "strided": holes,
    }
