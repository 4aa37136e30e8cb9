# SPDX-License-Identifier: Apache-2.0
"""Balanced and smooth L1 on any sizes, strides and dtypes, and on any instruction set."""

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from detectron_libra.ops.balanced_l1 import balanced_l1, smooth_l1
from tests.ops import harness
from tests.ops.harness import needs_kernels

FORMS = ("paper", "released", "smooth_l1")
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def loss(form, pred, target, **options):
    if form == "smooth_l1":
        return smooth_l1(pred, target, **options)
    return balanced_l1(pred, target, form=form, **options)


def tensor(shape, dtype, layout, seed):
    """Numbers of about one, with the dimensions in another memory order, or with holes between them."""
    g = torch.Generator().manual_seed(seed)
    t = torch.randn(shape, generator=g, dtype=torch.float64).to(dtype)
    if layout == "transposed":
        return t.movedim(0, -1).contiguous().movedim(-1, 0)
    if layout == "holes":
        return torch.stack((t, t), -1)[..., 0]
    return t


@needs_kernels
@given(
    shape=st.lists(st.integers(0, 9), min_size=1, max_size=4),
    layouts=st.lists(st.sampled_from(["plain", "transposed", "holes"]), min_size=3, max_size=3),
    dtypes=st.lists(st.sampled_from(DTYPES), min_size=3, max_size=3),
    form=st.sampled_from(FORMS),
    beta=st.sampled_from([0.0, 0.11, 1.0, 2.5]),
    reduction=st.sampled_from(["none", "mean", "sum"]),
    weighted=st.booleans(),
)
def test_any_sizes_strides_and_mixed_dtypes(shape, layouts, dtypes, form, beta, reduction, weighted):
    pred, target, weight = (
        tensor(shape, d, x, k) for k, (d, x) in enumerate(zip(dtypes, layouts, strict=True))
    )
    pred.requires_grad_()
    options = {"beta": beta, "reduction": reduction, "weight": weight.abs() if weighted else None}

    def run():
        value = loss(form, pred, target, **options)
        (gradient,) = torch.autograd.grad((value.double() * harness.uneven(value)).sum(), pred)
        return value.detach(), gradient

    got, expected = (harness.with_backend(name, run) for name in ("compiled", "reference"))
    half = pred.dtype in (torch.bfloat16, torch.float16) or got[0].dtype in (torch.bfloat16, torch.float16)
    tolerance = {"rtol": 2e-2, "atol": 2e-2} if half else {"rtol": 2e-5, "atol": 2e-5}
    torch.testing.assert_close(got, expected, **tolerance)
    assert got[1].dtype == pred.dtype


@needs_kernels
@given(count=st.integers(0, 20000), form=st.sampled_from(FORMS), threads=st.integers(1, 4))
def test_the_sum_is_that_of_the_elements_for_any_number_of_threads(count, form, threads):
    pred, target = tensor([count], torch.float32, "plain", 1), tensor([count], torch.float32, "plain", 2)
    total = loss(form, pred, target, beta=0.5, reduction="sum")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        again = loss(form, pred, target, beta=0.5, reduction="sum")
    finally:
        torch.set_num_threads(before)
    assert torch.equal(total, again)
    terms = loss(form, pred, target, beta=0.5).double().sum()
    torch.testing.assert_close(total.double(), terms, rtol=2e-6, atol=1e-6)


@given(
    x=st.floats(-1e30, 1e30) | st.floats(-3, 3),
    alpha=st.floats(0.1, 1),
    gamma=st.floats(0.5, 3),
    beta=st.floats(0.05, 3),
    name=st.sampled_from(["balanced_l1", "smooth_l1"]),
)
def test_the_slope_is_the_derivative_of_the_value(x, alpha, gamma, beta, name):
    """The released form is left out: what it calls its slope jumps at 0 and at beta."""
    math_module = pytest.importorskip("detectron_libra._math")
    value, slope = getattr(math_module, f"{name}_value"), getattr(math_module, f"{name}_slope")
    numbers = (alpha, gamma, beta)
    step = 1e-6 * max(abs(x), 0.1)
    difference = (value(x + step, *numbers) - value(x - step, *numbers)) / (2 * step)
    # Across beta or 0 the second derivative jumps; the slope itself changes by its size times the step.
    steepest = np.expm1(gamma / alpha) * alpha / beta if name == "balanced_l1" else 1 / beta
    assert abs(difference - slope(x, *numbers)) <= 1e-6 * gamma + steepest * step + 1e-5 * abs(difference)
    assert slope(-x, *numbers) == -slope(x, *numbers)


def digest() -> str:
    """Of the bits of every form, dtype and reduction, on more elements than one partial sum covers."""
    found = hashlib.sha256()
    for dtype in DTYPES:
        pred, target, weight = (tensor([5003], dtype, "plain", k) for k in range(3))
        pred[:4] = torch.tensor([float("inf"), float("nan"), 0.0, -3e4])
        pred.requires_grad_()
        for form in FORMS:
            for reduction in ("none", "sum"):
                value = loss(form, pred, target, beta=0.3, weight=weight.abs(), reduction=reduction)
                (gradient,) = torch.autograd.grad(value.nan_to_num().sum(), pred)
                for t in (value.detach(), gradient):
                    found.update(t.reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


@needs_kernels
@pytest.mark.parametrize("limit", ["baseline", "avx2"])
def test_equal_bits_on_every_instruction_set(limit):
    code = "from tests.ops.test_balanced_l1_properties import digest; print(digest())"
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"LIBRA_SIMD": limit},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == digest()
