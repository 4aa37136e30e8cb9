# SPDX-License-Identifier: Apache-2.0
"""Balanced and smooth L1: both formulas, reductions, hard inputs, kernel against definition."""

import math

import numpy as np
import pytest
import torch

from detectron_libra.ops.balanced_l1 import balanced_l1, smooth_l1
from tests import golden
from tests.ops import harness
from tests.ops.harness import needs_kernels

MMDET_EPSILON = 1.1920928955078125e-07
FORMS = {
    "paper": lambda p, t, **k: balanced_l1(p, t, beta=0.11, **k),
    "released": lambda p, t, **k: balanced_l1(p, t, beta=0.11, form="released", **k),
    "smooth_l1": lambda p, t, **k: smooth_l1(p, t, beta=1 / 9, **k),
}


def residuals(shape=(37, 4), dtype=torch.float32, device="cpu"):
    """pred, target, weight; residuals on both sides of beta."""
    g = torch.Generator().manual_seed(3)
    pred, target, weight = (torch.randn(shape, generator=g, dtype=torch.float64) for _ in range(3))
    return [t.to(device, dtype) for t in (pred, target * 0.3 + pred * 0.5, weight.abs())]


def slope_at(x, **options):
    """Derivative of the loss at the numbers x, float64."""
    x = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    return torch.autograd.grad(balanced_l1(x, torch.zeros_like(x), **options).sum(), x)[0]


# What the formulas say.


@pytest.mark.parametrize("beta", [0.11, 0.5, 1.0, 2.0])
@pytest.mark.parametrize(("alpha", "gamma"), [(0.5, 1.5), (0.2, 1.0)])
def test_the_paper_form_has_the_papers_slope_for_any_beta(each_backend, alpha, gamma, beta):
    b = math.exp(gamma / alpha) - 1
    x = np.array([1e-6, 0.3 * beta, 0.999999 * beta, beta, 1.000001 * beta, 9.0])
    expected = np.where(x < beta, alpha * np.log(b * x / beta + 1), gamma)
    got = slope_at(np.concatenate([x, -x]).tolist(), alpha=alpha, gamma=gamma, beta=beta).numpy()
    np.testing.assert_allclose(got, np.concatenate([expected, -expected]), rtol=1e-9, atol=1e-12)


def test_the_paper_form_is_continuous_where_the_released_slope_jumps(each_backend):
    just_inside, at_beta = 0.11 * (1 - 1e-9), 0.11
    paper = slope_at([just_inside, at_beta], beta=0.11)
    released = slope_at([just_inside, at_beta], beta=0.11, form="released")
    assert abs(paper[0] - paper[1]) < 1e-6
    assert released[0] - released[1] > 0.2


def test_forms_agree_at_beta_one(each_backend):
    pred, target, _ = residuals(dtype=torch.float64)
    torch.testing.assert_close(balanced_l1(pred, target), balanced_l1(pred, target, form="released"))


def test_smooth_l1_is_torchs(each_backend):
    pred, target, _ = residuals(dtype=torch.float64)
    for beta in (0.0, 1 / 9, 1.0):
        expected = torch.nn.functional.smooth_l1_loss(pred, target, beta=beta, reduction="none")
        torch.testing.assert_close(smooth_l1(pred, target, beta=beta), expected)


@pytest.mark.parametrize("form", FORMS)
@needs_kernels
def test_scalar_formulas_are_those_of_the_kernels(form):
    math_module = pytest.importorskip("detectron_libra._math")
    name = {"paper": "balanced_l1", "released": "balanced_l1_released", "smooth_l1": "smooth_l1"}[form]
    pred, target, _ = residuals(dtype=torch.float64)
    beta = 1 / 9 if form == "smooth_l1" else 0.11
    value, gradient = harness.value_and_gradients(FORMS[form], [pred, target])[:2]
    x = (pred - target).numpy()
    np.testing.assert_allclose(
        getattr(math_module, f"{name}_value")(x, 0.5, 1.5, beta), value.numpy(), rtol=1e-12
    )
    slope = getattr(math_module, f"{name}_slope")(x, 0.5, 1.5, beta) * harness.uneven(pred).numpy()
    np.testing.assert_allclose(slope, gradient.numpy(), rtol=1e-12)


# Golden numbers of the published code.


@pytest.mark.parametrize("dtype", ["f64", "f32"])
def test_released_form_equals_published_code(each_backend, dtype):
    data, meta = golden.load("balanced_l1_elementwise")
    torch_dtype = {"f64": torch.float64, "f32": torch.float32}[dtype]
    tolerance = {"f64": {"rtol": 1e-9, "atol": 1e-11}, "f32": {"rtol": 2e-5, "atol": 2e-6}}[dtype]
    for k, (alpha, gamma, beta) in enumerate(meta["parameters"]["configs (alpha,gamma,beta) by index c<k>"]):
        pred = torch.from_numpy(data[f"c{k}_diff"]).to(torch_dtype).requires_grad_()
        loss = balanced_l1(pred, torch.zeros_like(pred), alpha=alpha, gamma=gamma, beta=beta, form="released")
        (grad,) = torch.autograd.grad(loss.sum(), pred)
        for name, got in (("loss", loss.detach()), ("grad", grad)):
            expected = data[f"c{k}_{name}_{dtype}"]
            known = np.isfinite(expected)  # NaN is where the published gradient is lost; see the edge cases
            np.testing.assert_allclose(
                got.numpy()[known], expected[known], err_msg=f"c{k} {name}", **tolerance
            )


def test_reductions_weights_and_normalizer_equal_published_code(each_backend):
    data, meta = golden.load("balanced_l1_reduce")
    checked = 0
    for case in meta["parameters"]["cases"]:
        factor = case["avg_factor"]
        if case["reduction"] == "sum" and factor is not None:
            continue
        k = case["k"]
        pred = torch.from_numpy(data["pred"]).requires_grad_()
        loss = case["loss_weight"] * balanced_l1(
            pred,
            torch.from_numpy(data["target"]),
            alpha=case["alpha"],
            gamma=case["gamma"],
            beta=case["beta"],
            form="released",
            weight=torch.from_numpy(data["weight"]) if case["weight"] else None,
            reduction=case["reduction"],
            normalizer=None if factor is None else factor + MMDET_EPSILON,
        )
        (grad,) = torch.autograd.grad(loss.sum(), pred)
        np.testing.assert_allclose(loss.detach().numpy(), data[f"k{k}_loss_f64"], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(grad.numpy(), data[f"k{k}_grad_f64"], rtol=1e-9, atol=1e-12)
        checked += 1
    assert checked > 50


@pytest.mark.parametrize(("name", "beta"), [("b1", 1.0), ("b011", 0.11)])
def test_hard_inputs_where_published_gradients_are_lost(each_backend, name, beta):
    data, _ = golden.load("balanced_l1_edge")
    pred = torch.from_numpy(data[f"f32_{name}_pred"]).requires_grad_()
    loss = balanced_l1(pred, torch.zeros_like(pred), beta=beta, form="released")
    (grad,) = torch.autograd.grad(loss.sum(), pred)
    np.testing.assert_allclose(loss.detach().numpy(), data[f"f32_{name}_loss"], rtol=1e-5, atol=1e-6)
    expected = data[f"f32_{name}_grad"]
    lost = np.isnan(expected) & ~np.isnan(pred.detach().numpy())
    assert lost.any()
    np.testing.assert_allclose(
        grad.numpy(), np.where(lost, 1.5 * np.sign(pred.detach().numpy()), expected), rtol=1e-5, atol=1e-6
    )


# Hard inputs.


@pytest.mark.parametrize("form", FORMS)
def test_gradient_is_finite_except_for_nan(each_backend, form):
    nan, inf = math.nan, math.inf
    pred = torch.tensor([0.0, inf, -inf, 3e38, -3e38, nan], requires_grad=True)
    loss = FORMS[form](pred, torch.zeros(6))
    (grad,) = torch.autograd.grad(loss.sum(), pred)
    steep = 1.0 if form == "smooth_l1" else 1.5
    assert grad[:5].tolist() == [0.0, steep, -steep, steep, -steep]
    assert grad[5].isnan()
    assert loss[5].isnan()
    assert loss[1] == inf
    assert loss[0] == 0 or form == "released"


@pytest.mark.parametrize("shape", [(0, 4), (0,), (1,), ()])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_empty_and_single(each_backend, shape, reduction):
    pred = torch.full(shape, 3.0, requires_grad=True)
    loss = balanced_l1(pred, torch.zeros(shape), reduction=reduction)
    loss.sum().backward()
    assert pred.grad.shape == shape
    assert loss.shape == (shape if reduction == "none" else ())
    if pred.numel() == 0:
        assert loss.sum().item() == 0


def test_half_precision_sums_do_not_overflow(each_backend):
    pred = torch.full((4096,), 100.0, dtype=torch.float16)
    total = balanced_l1(pred, torch.zeros_like(pred), reduction="sum")
    assert total.dtype == torch.float32
    assert 6e5 < total.item() < 6.2e5


def test_wrong_arguments_are_refused(each_backend):
    a, b = torch.zeros(2, 4), torch.zeros(2, 3)
    with pytest.raises(RuntimeError, match="pred and target must have the same shape"):
        balanced_l1(a, b)
    with pytest.raises(RuntimeError, match="pred and weight must have the same shape"):
        balanced_l1(a, a, weight=b)
    with pytest.raises(RuntimeError, match="pred and target must be on the same device"):
        balanced_l1(a, a.to("meta"))
    with pytest.raises(ValueError, match="normalizer"):
        balanced_l1(a, a, reduction="sum", normalizer=3.0)
    with pytest.raises(ValueError, match="form"):
        balanced_l1(a, a, form="published")
    with pytest.raises(ValueError, match="alpha"):
        balanced_l1(a, a, alpha=0.0)
    with pytest.raises(ValueError, match="reduction"):
        balanced_l1(a, a, reduction="median")


# Kernel against definition.


@needs_kernels
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_kernel_equals_reference(device, form, reduction, dtype):
    def run(pred, target, weight):
        return FORMS[form](pred, target, weight=weight, reduction=reduction)

    wide = dtype in (torch.float64, torch.float32)
    tolerance = {} if wide else {"rtol": 2e-2, "atol": 2e-3}
    harness.check_against_reference(run, residuals(dtype=dtype, device=device), **tolerance)


@needs_kernels
@pytest.mark.parametrize("form", FORMS)
def test_gradients_against_finite_differences(device, form):
    pred, target, weight = residuals((5, 4), torch.float64, device)
    harness.check_gradients(lambda *t: FORMS[form](*t[:2], weight=t[2]), [pred, target, weight])
    harness.check_gradients(
        lambda *t: FORMS[form](*t[:2], weight=t[2], reduction="sum"), [pred, target, weight]
    )


@needs_kernels
def test_registration_passes_opcheck(device):
    ops = torch.ops.detectron_libra
    for layout in ("contiguous", "channels_last", "strided"):
        pred, target, weight = residuals((2, 3, 4, 5), device=device)
        pred = harness.layouts(pred)[layout].detach().requires_grad_()
        for w in (None, weight):
            harness.check_op(ops.balanced_l1.default, (pred, target, w, 0, 0.5, 1.5, 1.0))
            for normalizer in (None, torch.tensor(7.0, device=device)):
                numbers = (0.5, 1, 0.5, 1.5, 1.0, True)
                harness.check_op(ops.balanced_l1_sum.default, (pred, target, w, normalizer, *numbers))


@needs_kernels
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "strided"])
def test_memory_orders(device, layout):
    pred, target, weight = residuals((2, 3, 4, 5), device=device)
    mixed = [harness.layouts(pred)[layout], target, weight]
    same = [harness.layouts(t)[layout] for t in (pred, target, weight)]
    for inputs in (mixed, same):
        out = with_weight(*inputs)
        torch.testing.assert_close(out, with_weight(pred, target, weight))
        harness.check_against_reference(with_weight, inputs)
    if layout == "channels_last":
        assert with_weight(*same).is_contiguous(memory_format=torch.channels_last)


def with_weight(pred, target, weight):
    return balanced_l1(pred, target, weight=weight, beta=0.5)


@needs_kernels
def test_equal_bits_from_run_to_run(device):
    inputs = residuals((50000, 4), device=device)
    harness.check_repeats(with_weight, inputs)
    harness.check_repeats(lambda *t: balanced_l1(*t[:2], weight=t[2], reduction="sum"), inputs)


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_computes_in_float32(device, dtype):
    harness.check_autocast_runs_in_float32(with_weight, residuals(device=device), dtype)


@needs_kernels
def test_compiles_in_one_graph(device):
    harness.check_compiles(
        lambda *t: balanced_l1(*t[:2], weight=t[2], reduction="mean", normalizer=7.0),
        residuals(device=device),
    )


@needs_kernels
@pytest.mark.parametrize("reduction", ["none", "sum"])
def test_second_derivative_is_refused(reduction):
    pred, target, _ = residuals()
    pred.requires_grad_()
    (grad,) = torch.autograd.grad(
        balanced_l1(pred, target, reduction=reduction).sum(), pred, create_graph=True
    )
    with pytest.raises(NotImplementedError, match="second derivative"):
        grad.sum().backward()
