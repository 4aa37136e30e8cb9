# SPDX-License-Identifier: Apache-2.0
"""Balanced L1: what reaches the gradient, for which arguments, and what the operator refuses."""

import math

import pytest
import torch

from detectron_libra.ops.balanced_l1 import balanced_l1
from tests.ops.harness import needs_kernels
from tests.ops.test_balanced_l1 import residuals


def test_a_second_backward_pass_gives_the_same_gradient(each_backend):
    """The gradient written in the forward pass is scaled in place: the second pass must not scale it again."""
    pred, target, weight = residuals(dtype=torch.float64)
    pred.requires_grad_()
    loss = 3 * balanced_l1(pred, target, weight=weight, reduction="sum")
    first = torch.autograd.grad(loss, pred, retain_graph=True)[0].clone()
    assert torch.equal(torch.autograd.grad(loss, pred)[0], first)
    assert first.abs().max() > 1.5  # a slope of up to gamma, times 3


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_weight_zero_leaves_an_element_out_whatever_it_holds(each_backend, reduction):
    pred = torch.tensor([math.inf, math.nan, -3e38, 2.0], requires_grad=True)
    weight = torch.tensor([0.0, 0.0, 0.0, 1.0])
    loss = balanced_l1(pred, torch.zeros(4), weight=weight, reduction=reduction, normalizer=None)
    (grad,) = torch.autograd.grad(loss.sum(), pred)
    one = balanced_l1(torch.tensor(2.0), torch.tensor(0.0)).item()
    assert loss.sum().item() == pytest.approx(one / (4 if reduction == "mean" else 1))
    assert grad.tolist() == pytest.approx([0, 0, 0, 1.5 / (4 if reduction == "mean" else 1)])


@pytest.mark.parametrize("normalizer", [8.0, torch.tensor(8.0), torch.tensor(8)])
def test_normalizer_may_be_a_number_or_a_tensor(each_backend, normalizer):
    pred, target, _ = residuals()
    total = balanced_l1(pred, target, reduction="sum")
    torch.testing.assert_close(balanced_l1(pred, target, reduction="mean", normalizer=normalizer), total / 8)


@pytest.mark.parametrize("learner", ["target", "weight", "normalizer"])
def test_every_argument_can_learn(each_backend, learner):
    pred, target, weight = residuals((5, 4), torch.float64)
    inputs = {"target": target, "weight": weight, "normalizer": torch.tensor(3.0, dtype=torch.float64)}
    inputs[learner].requires_grad_()
    pred.requires_grad_()

    def loss(pred, argument):
        now = inputs | {learner: argument}
        return balanced_l1(
            pred, now["target"], weight=now["weight"], reduction="mean", normalizer=now["normalizer"]
        )

    assert torch.autograd.gradcheck(loss, (pred, inputs[learner]))


@needs_kernels
def test_the_operator_itself_refuses_what_the_function_would():
    a, op = torch.zeros(2, 4), torch.ops.detectron_libra.balanced_l1.default
    for target, weight, message in (
        (torch.zeros(4, 2), None, "pred and target must have the same shape"),
        (a.double(), None, "pred and target must have the same dtype"),
        (a, torch.zeros(2), "pred and weight must have the same shape"),
    ):
        with pytest.raises(RuntimeError, match=message):
            op(a, target, weight, 0, 0.5, 1.5, 1.0)
    with pytest.raises(RuntimeError, match="form must be"):
        op(a, a, None, 7, 0.5, 1.5, 1.0)
    with pytest.raises(RuntimeError, match="pred must be float32"):
        op(a.long(), a.long(), None, 0, 0.5, 1.5, 1.0)
