# SPDX-License-Identifier: Apache-2.0
"""The whole balanced pyramid: equal to its parts, free of copies, and right for any pyramid there is."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from detectron_libra.ops.pyramid import balance, integrate, strengthen
from tests.ops.harness import (
    check_against_reference,
    check_compiles,
    check_gradients,
    check_repeats,
    layouts,
    needs_kernels,
    with_backend,
)

SIZES = [(12, 16), (6, 8), (3, 4), (2, 2)]
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12, torch.bfloat16: 4e-2, torch.float16: 5e-3}


def make(sizes=SIZES, channels=4, batch=2, dtype=torch.float32, seed=0):
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, channels, h, w, generator=g).to(dtype) for h, w in sizes]


def halve(x):
    return x * 0.5


def parts(levels, refine):
    return strengthen(levels, halve(integrate(levels, refine)), refine)


def gradients(run, levels):
    leaves = [t.clone().requires_grad_() for t in levels]
    outs = run(leaves)
    weights = [torch.linspace(-1, 2, o.numel()).view(o.shape).to(o) for o in outs]
    return torch.autograd.grad(outs, leaves, weights)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "strided"])
@pytest.mark.parametrize("refine", range(4))
def test_balance_is_integrate_refinement_strengthen(each_backend, refine, layout, device):
    levels = [layouts(t)[layout].to(device) for t in make()]
    for a, b in zip(balance(levels, refine, halve), parts(levels, refine), strict=True):
        assert torch.equal(a, b)
    together = gradients(lambda x: balance(x, refine, halve), levels)
    for a, b in zip(together, gradients(lambda x: parts(x, refine), levels), strict=True):
        torch.testing.assert_close(a, b)


@needs_kernels
@pytest.mark.parametrize("refine", [0, 1, 3])
def test_balance_has_the_gradient_of_finite_differences(refine):
    check_gradients(lambda *x: balance(x, refine, torch.sin), make([(5, 4), (3, 3), (2, 1), (1, 1)], 2))


@needs_kernels
def test_balance_compiles_in_one_graph():
    check_compiles(lambda *x: balance(x, 1, halve), make())


@needs_kernels
def test_balance_repeats_bit_for_bit(device):
    levels = [t.to(device) for t in make([(64, 80), (32, 40), (16, 20), (9, 11)], 32)]
    check_repeats(lambda *x: balance(x, 1, halve), levels)
    check_repeats(
        lambda *x: balance(x, 1, halve), [t.contiguous(memory_format=torch.channels_last) for t in levels]
    )


@needs_kernels
def test_compiled_once_for_sizes_that_change():
    compiled = torch.compile(lambda *x: balance(x, 1), fullgraph=True, dynamic=True, backend="aot_eager")
    for sizes in (SIZES, [(20, 14), (10, 7), (5, 4), (3, 2)], [(9, 9), (5, 5), (3, 3), (2, 2)]):
        levels = [t.requires_grad_() for t in make(sizes)]
        got, want = compiled(*levels), balance(levels, 1)
        for a, b in zip(got, want, strict=True):
            torch.testing.assert_close(a, b)
        weights = [torch.randn_like(o) for o in want]
        for a, b in zip(
            torch.autograd.grad(got, levels, weights), torch.autograd.grad(want, levels, weights), strict=True
        ):
            torch.testing.assert_close(a, b)


@needs_kernels
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_gradients_pass_through_strengthen_without_a_copy(memory_format):
    levels = [t.contiguous(memory_format=memory_format).requires_grad_() for t in make()]
    outs = strengthen(levels, levels[1].detach(), 1)
    weights = [torch.randn_like(o) for o in outs]
    for got, weight in zip(torch.autograd.grad(outs, levels, weights), weights, strict=True):
        assert got.data_ptr() == weight.data_ptr()


@needs_kernels
def test_levels_that_no_loss_uses_and_levels_that_do_not_learn():
    levels = make()
    levels[1].requires_grad_()
    levels[2].requires_grad_()
    for used in ([0], [3], [1, 2]):

        def run(used=used):
            outs = balance(levels, 1, halve)
            return torch.autograd.grad(sum(outs[i].square().sum() for i in used), levels[1:3])

        got, want = run(), with_backend("reference", run)
        for a, b in zip(got, want, strict=True):
            torch.testing.assert_close(a, b)


@needs_kernels
def test_a_refinement_without_gradient_leaves_the_levels_own():
    levels = [t.requires_grad_() for t in make()]
    outs = balance(levels, 1, torch.Tensor.detach)
    for grad, out in zip(torch.autograd.grad(sum(o.sum() for o in outs), levels), outs, strict=True):
        assert torch.equal(grad, torch.ones_like(out))


@needs_kernels
def test_balance_refuses_a_second_derivative():
    x = [t.double().requires_grad_() for t in make()]
    (first,) = torch.autograd.grad(balance(x, 1)[0].square().sum(), x[:1], create_graph=True)
    with pytest.raises(NotImplementedError, match="second derivative"):
        first.sum().backward()


def test_a_refinement_that_changes_the_shape_is_refused(each_backend):
    with pytest.raises(RuntimeError, match="refined"):
        balance(make(), 1, lambda x: x[..., 1:])


@needs_kernels
@pytest.mark.parametrize(
    "passed, message",
    [
        ([None], "passed must be empty or hold one per level"),
        ([torch.zeros(2, 4, 5, 5), None], "passed must have the shapes of the levels"),
        ([None, torch.zeros(2, 4, 2, 2, dtype=torch.float64)], "passed and grad must have the same dtype"),
    ],
)
def test_wrong_gradients_to_add_are_refused(passed, message):
    op = torch.ops.detectron_libra.pyramid_integrate_backward
    grad = torch.zeros(2, 4, 4, 4)
    with pytest.raises(RuntimeError, match=message):
        op(grad, passed, [], [4, 4, 2, 2], 0)


pyramids = st.lists(st.tuples(st.integers(1, 24), st.integers(1, 24)), min_size=1, max_size=6)


@needs_kernels
@given(
    sizes=pyramids,
    refine=st.integers(0, 5),
    channels=st.integers(1, 9),
    batch=st.integers(0, 2),
    dtype=st.sampled_from(list(TOLERANCE)),
    layout=st.sampled_from(["contiguous", "channels_last", "strided"]),
    ties=st.booleans(),
)
def test_any_pyramid_equals_the_reference(device, sizes, refine, channels, batch, dtype, layout, ties):
    """Sizes that shrink, grow or repeat, odd ones, ties, and no image."""
    levels = make(sizes, channels, batch, seed=len(sizes))
    levels = [(t * 2).round() if ties else t for t in levels]
    levels = [layouts(t.to(device, dtype))[layout] for t in levels]
    exact = TOLERANCE[dtype]
    check_against_reference(
        lambda *x: balance(x, refine % len(sizes), halve), levels, rtol=exact, atol=40 * exact
    )


@needs_kernels
@given(
    fine=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    coarse=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    values=st.lists(
        st.sampled_from([math.nan, math.inf, -math.inf, -0.0, 0.0, 1.0]), min_size=1, max_size=40
    ),
    channels_last=st.booleans(),
)
def test_nan_infinity_and_ties_take_torchs_way(device, fine, coarse, values, channels_last):
    """The value, and the cell that gets the gradient."""
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    count = 3 * fine[0] * fine[1]
    numbers = (values * count)[:count]
    x = torch.tensor(numbers, device=device).view(1, 3, *fine).contiguous(memory_format=memory_format)
    levels = [x, torch.zeros(1, 3, *coarse, device=device).contiguous(memory_format=memory_format)]
    kernel, want = [x.clone().requires_grad_() for _ in range(2)]
    got = integrate([kernel, levels[1]], 1) * 2
    pooled = F.adaptive_max_pool2d(want, coarse)
    assert torch.equal(got.isnan(), pooled.isnan())
    torch.testing.assert_close(got, pooled, equal_nan=True)
    weights = torch.arange(1.0, got.numel() + 1, device=device).view(got.shape)
    (grad,) = torch.autograd.grad(got, kernel, weights)
    torch.testing.assert_close(grad, torch.autograd.grad(pooled, want, weights)[0])
