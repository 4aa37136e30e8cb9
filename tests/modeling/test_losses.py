# SPDX-License-Identifier: Apache-2.0
"""The box losses as modules: numbers of the paper, and a mean over a count that is given."""

import math

import pytest
import torch

from detectron_libra.modeling.losses import BalancedL1Loss, SmoothL1Loss
from detectron_libra.ops.balanced_l1 import balanced_l1, smooth_l1

LOSSES = [BalancedL1Loss(), BalancedL1Loss(beta=0.11, form="released"), SmoothL1Loss(beta=1 / 9)]


def test_balanced_l1_has_the_papers_value_at_one():
    loss = BalancedL1Loss()(torch.ones(1, 4), torch.zeros(1, 4), reduction="none")
    torch.testing.assert_close(loss, torch.full((1, 4), 1.0785935447))


@pytest.mark.parametrize("beta", [0.11, 1.0, 2.0])
def test_the_papers_form_has_a_continuous_gradient_that_is_capped(beta):
    x = torch.tensor([0.0, beta - 1e-4, beta + 1e-4, 50.0], requires_grad=True)
    BalancedL1Loss(beta=beta)(x, torch.zeros(4), reduction="sum").backward()
    assert x.grad[0] == 0 and x.grad[3] == pytest.approx(1.5)
    assert abs(x.grad[1] - x.grad[2]) < 3e-3


def test_the_form_reaches_the_operator():
    pred, target = torch.full((1, 4), 0.05), torch.zeros(1, 4)
    values = {
        form: BalancedL1Loss(beta=0.11, form=form)(pred, target).item() for form in ("paper", "released")
    }
    assert values["paper"] != pytest.approx(values["released"], rel=0.1)
    assert values["released"] == pytest.approx(
        balanced_l1(pred, target, beta=0.11, form="released", reduction="mean").item()
    )


def test_smooth_l1_is_detectrons():
    """The rule: 0.5 x^2 / beta below beta, |x| - 0.5 beta above."""
    x = torch.tensor([0.05, 0.5])
    values = SmoothL1Loss(beta=0.11)(x, torch.zeros(2), reduction="none")
    torch.testing.assert_close(values, torch.tensor([0.05**2 / 0.22, 0.5 - 0.055]))
    torch.testing.assert_close(values, smooth_l1(x, torch.zeros(2), beta=0.11, reduction="none"))


@pytest.mark.parametrize("loss", LOSSES)
def test_the_mean_divides_the_weighted_sum_by_the_normalizer_and_else_by_the_elements(loss):
    torch.manual_seed(0)
    pred, target = torch.randn(5, 4), torch.randn(5, 4)
    weight = (torch.rand(5, 1) > 0.4).float().expand(5, 4)
    total = loss(pred, target, weight=weight, reduction="sum")
    torch.testing.assert_close(loss(pred, target, weight=weight, normalizer=torch.tensor(7.0)), total / 7)
    torch.testing.assert_close(loss(pred, target, weight=weight), total / 20)
    each = loss(pred, target, reduction="none")
    torch.testing.assert_close(total, (each * weight).sum())


@pytest.mark.parametrize("loss", LOSSES)
def test_no_box_is_a_loss_of_zero_and_no_gradient(loss):
    pred = torch.zeros(0, 4, requires_grad=True)
    value = loss(pred, torch.zeros(0, 4), normalizer=1.0)
    value.backward()
    assert value.item() == 0 and pred.grad.shape == (0, 4)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_printed_model_shows_its_parameters(loss):
    assert "beta=" in repr(loss) and not math.isnan(loss.beta)
