# SPDX-License-Identifier: Apache-2.0
"""focal_loss: the kernel against its definition, all levels in one call, what is left out, and the scalar formulas."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from detectron_libra.ops.focal_loss import focal_loss
from tests.ops import harness
from tests.ops.harness import needs_kernels

SIZES = [(6, 5), (3, 2), (1, 1)]


def pyramid(softmax=False, dtype=torch.float32, device="cpu", layout="contiguous", n=2, a=3, c=4, sizes=None):
    """Logits of some levels, labels, weight per anchor and per class."""
    g = torch.Generator().manual_seed(7)
    sizes = SIZES if sizes is None else sizes
    levels = [torch.randn(n, a * (c + softmax), h, w, generator=g, dtype=torch.float64) * 3 for h, w in sizes]
    levels = [harness.layouts(level.to(device, dtype))[layout] for level in levels]
    anchors = sum(a * h * w for h, w in sizes)
    labels = torch.randint(-1, c + 1, (n, anchors), generator=g)
    weight = (torch.rand(n, anchors, generator=g) - 0.3).clamp(min=0)
    class_weight = torch.rand(c, generator=g) + 0.5
    return levels, labels.to(device), weight.to(device), class_weight.to(device)


def loss_of(labels, weight=None, class_weight=None, *, gamma=2.0, softmax=False, c=4, normalizer=None):
    def run(*levels):
        return focal_loss(
            levels,
            labels,
            alpha=0.25,
            gamma=gamma,
            num_classes=c,
            weight=weight,
            class_weight=class_weight,
            softmax=softmax,
            normalizer=normalizer,
        )

    return run


@needs_kernels
@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "strided"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("gamma", [2.0, 1.5, 0.0])
def test_kernel_equals_reference(device, softmax, layout, dtype, gamma):
    levels, labels, weight, class_weight = pyramid(softmax, dtype, device, layout)
    tolerance = {} if dtype in (torch.float64, torch.float32) else {"rtol": 2e-2, "atol": 2e-3}
    for extras in ((None, None), (weight, class_weight)):
        run = loss_of(labels, *extras, gamma=gamma, softmax=softmax, normalizer=3.0)
        harness.check_against_reference(run, levels, **tolerance)


@needs_kernels
@pytest.mark.parametrize("softmax", [False, True])
def test_gradients_against_finite_differences(device, softmax):
    levels, labels, weight, class_weight = pyramid(softmax, torch.float64, device, sizes=[(2, 2), (1, 1)])
    harness.check_gradients(loss_of(labels, weight, class_weight, softmax=softmax), levels)


@needs_kernels
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_the_gradient_has_the_layout_of_its_level(device, layout):
    levels, labels, *_ = pyramid(layout=layout, device=device)
    leaves = [level.requires_grad_() for level in levels]
    grads = torch.autograd.grad(loss_of(labels)(*leaves), leaves)
    assert [g.stride() for g in grads] == [level.stride() for level in levels]


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int32])
def test_labels_of_any_width(device, dtype):
    levels, labels, *_ = pyramid(device=device)
    assert torch.equal(loss_of(labels.to(dtype))(*levels), loss_of(labels)(*levels))


@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_what_is_left_out_may_hold_anything(each_backend, softmax, layout):
    """Label -1 and weight 0: neither NaN nor infinity reaches the value or the gradient."""
    levels, labels, _, _ = pyramid(softmax, layout=layout, n=1, a=1, sizes=[(1, 4)])
    labels = torch.tensor([[-1, 0, 2, 1]])
    weight = torch.tensor([[1.0, 0.0, 1.0, 1.0]])
    clean = loss_of(labels, weight, softmax=softmax)(*levels)
    with torch.no_grad():
        levels[0][0, :, 0, 0] = float("nan")
        levels[0][0, :, 0, 1] = float("inf")
    leaf = levels[0].requires_grad_()
    loss = loss_of(labels, weight, softmax=softmax)(leaf)
    (grad,) = torch.autograd.grad(loss, leaf)
    torch.testing.assert_close(loss, clean)
    assert (grad[0, :, 0, :2] == 0).all()
    assert grad.isfinite().all()


@needs_kernels
@pytest.mark.parametrize("gamma", [2.0, 1.5])
def test_infinite_logits_have_the_slope_of_their_limit(device, gamma):
    inf = float("inf")
    x = torch.tensor([inf, -inf, inf, -inf, 1e30, -1e30], device=device).reshape(1, 1, 1, 6).requires_grad_()
    labels = torch.tensor([[0, 0, 1, 1, 0, 0]], device=device)
    loss = focal_loss(x, labels, alpha=0.25, gamma=gamma, num_classes=1)
    (grad,) = torch.autograd.grad(loss, x)
    assert loss == inf
    assert grad.flatten().tolist() == [0.75, 0.0, 0.0, -0.25, 0.75, 0.0]
    x = torch.full((1, 1, 1, 1), float("nan"), device=device)
    assert focal_loss(x, labels[:, :1], alpha=0.25, gamma=gamma, num_classes=1).isnan()


@needs_kernels
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_equal_bits_from_run_to_run(device, layout):
    levels, labels, weight, class_weight = pyramid(
        device=device, layout=layout, c=20, sizes=[(40, 33), (7, 5)]
    )
    harness.check_repeats(loss_of(labels, weight, class_weight, c=20), levels)


@needs_kernels
def test_registration_passes_opcheck(device):
    op = torch.ops.detectron_libra.focal_loss_sum.default
    for softmax in (False, True):
        levels, labels, weight, class_weight = pyramid(softmax, device=device, layout="channels_last")
        levels = [level.requires_grad_() for level in levels]
        for extras in ((None, None, None), (weight, class_weight, torch.tensor(2.0, device=device))):
            harness.check_op(op, (levels, labels, *extras, 0.5, 0.25, 2.0, 4, softmax, True))


@needs_kernels
def test_compiles_in_one_graph(device):
    levels, labels, weight, class_weight = pyramid(device=device)
    normalizer = torch.tensor(5.0, device=device)
    harness.check_compiles(loss_of(labels, weight, class_weight, normalizer=normalizer), levels)


def test_half_precision_under_autocast(device):
    levels, labels, *_ = pyramid(device=device, dtype=torch.bfloat16)
    with torch.autocast(device, torch.bfloat16):
        loss = loss_of(labels)(*levels)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, loss_of(labels)(*[level.float() for level in levels]))


def test_wrong_arguments_are_refused(each_backend):
    levels, labels, weight, class_weight = pyramid()
    with pytest.raises(ValueError, match="logits: no level"):
        loss_of(labels)()
    with pytest.raises(ValueError, match="gamma=-1"):
        loss_of(labels, gamma=-1)(*levels)
    with pytest.raises(ValueError, match="logits have 12 channels"):
        loss_of(labels, c=5)(*levels)
    with pytest.raises(ValueError, match=r"labels is \(2, 3\)"):
        loss_of(labels[:, :3])(*levels)
    with pytest.raises(ValueError, match="weight is"):
        loss_of(labels, weight[:1])(*levels)
    with pytest.raises(ValueError, match="class_weight is"):
        loss_of(labels, weight, class_weight[:2])(*levels)
    with pytest.raises(RuntimeError, match="labels must be int8"):
        loss_of(labels.float())(*levels)


@needs_kernels
@given(
    sizes=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 140)), min_size=1, max_size=3),
    c=st.sampled_from([1, 3, 17, 130]),
    a=st.integers(1, 3),
    n=st.integers(0, 2),
    softmax=st.booleans(),
    layout=st.sampled_from(["contiguous", "channels_last", "strided"]),
)
def test_kernel_equals_reference_for_any_size(sizes, c, a, n, softmax, layout):
    levels, labels, weight, class_weight = pyramid(softmax, layout=layout, n=n, a=a, c=c, sizes=sizes)
    run = loss_of(labels, weight, class_weight, c=c, softmax=softmax)
    harness.check_against_reference(run, levels, rtol=2e-5, atol=2e-5)


# The scalar formulas.


@pytest.mark.parametrize("form", ["sigmoid", "softmax"])
@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 3.7])
def test_slope_is_the_derivative_of_the_value(form, positive, gamma):
    formulas = pytest.importorskip("detectron_libra._math")
    x = np.linspace(-30, 30, 1201) if form == "sigmoid" else -np.logspace(-3, 1.5, 600)
    value, slope = getattr(formulas, f"focal_{form}_value"), getattr(formulas, f"focal_{form}_slope")
    step = 1e-5 * np.maximum(1, np.abs(x)) if form == "sigmoid" else 1e-5 * np.abs(x)
    numbers = (positive, 0.25, gamma)
    measured = (value(x + step, *numbers) - value(x - step, *numbers)) / (2 * step)
    np.testing.assert_allclose(slope(x, *numbers), measured, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0, 2.5])
def test_value_is_the_papers_formula(gamma):
    formulas = pytest.importorskip("detectron_libra._math")
    x = np.linspace(-15, 15, 601)
    p = 1 / (1 + np.exp(-x))
    positive = formulas.focal_sigmoid_value(x, True, 0.25, gamma)
    np.testing.assert_allclose(positive, -0.25 * (1 - p) ** gamma * np.log(p), rtol=1e-8, atol=1e-14)
    negative = formulas.focal_sigmoid_value(x, False, 0.25, gamma)
    np.testing.assert_allclose(negative, -0.75 * p**gamma * np.log(1 - p), rtol=1e-8, atol=1e-14)
