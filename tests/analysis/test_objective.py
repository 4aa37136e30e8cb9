# SPDX-License-Identifier: Apache-2.0
"""Gradients of the parts of a loss, and of inliers and outliers, against formulas worked out by hand."""

import math

import numpy as np
import pytest
import torch

from detectron_libra.analysis.objective import PartGradients, box_gradients, equalising_weights, split
from detectron_libra.errors import RunError


def part_gradients(weights, *batches):
    """Statistics of losses a = sum(x) and b = 2 sum(y^2) on levels x (3 numbers) and y (2)."""
    found = PartGradients(weights)
    totals = []
    for x, y in batches:
        leaves = [torch.tensor(x, requires_grad=True), torch.tensor(y, requires_grad=True)]
        losses = {"cls": leaves[0].sum(), "bbox": 2 * leaves[1].square().sum()}
        totals.append(found.add(losses, leaves))
    return found, totals


def test_each_part_pulls_with_its_gradient_and_the_total_with_the_weighted_sum():
    found, (total,) = part_gradients({"cls": 2.0, "bbox": 0.5}, ([1.0, 2.0, 3.0], [3.0, 4.0]))
    assert [t.tolist() for t in total] == [[2.0, 2.0, 2.0], [6.0, 8.0]]
    parts = found.tables()
    assert parts["cls"]["gradient_norm"] == pytest.approx(3**0.5, rel=1e-4)
    assert parts["bbox"] == {
        "loss": 50,
        "weight": 0.5,
        "gradient_norm": 20,
        "weighted_gradient_norm": 10,
        "share": pytest.approx(10 / (10 + 12**0.5), rel=1e-4),
    }


def test_batches_are_averaged():
    found, _ = part_gradients({"cls": 1.0, "bbox": 1.0}, ([0.0] * 3, [3.0, 4.0]), ([0.0] * 3, [0.0, 1.0]))
    parts = found.tables()
    assert parts["bbox"]["gradient_norm"] == 12 and parts["bbox"]["loss"] == 26


def test_with_the_equalising_weights_every_part_pulls_alike():
    batch = ([1.0, 2.0, 3.0], [3.0, 4.0])
    found, _ = part_gradients({"cls": 2.0, "bbox": 0.5}, batch)
    weights = equalising_weights(found.tables(), "cls")
    assert weights["cls"] == 2
    again, _ = part_gradients(weights, batch)
    pulls = [part["weighted_gradient_norm"] for part in again.tables().values()]
    assert pulls[0] == pytest.approx(pulls[1], rel=1e-3)


def test_a_part_without_gradient_has_no_equalising_weight():
    found, _ = part_gradients({"cls": 1.0, "bbox": 1.0}, ([1.0, 1.0, 1.0], [0.0, 0.0]))
    assert equalising_weights(found.tables(), "cls") == {"cls": 1.0, "bbox": None}


def test_a_loss_that_is_not_finite_is_named():
    with pytest.raises(RunError, match="loss bbox is inf"):
        part_gradients({"cls": 1.0, "bbox": 1.0}, ([1.0] * 3, [math.inf, 0.0]))


def test_inliers_and_outliers_share_the_gradient_as_the_formulas_say():
    """Smooth L1: |x| / beta inside; balanced L1: alpha ln(b |x| / beta + 1) inside, gamma outside (beta 1)."""
    residuals = torch.tensor([[0.2, -0.5, 0.8, 3.0]])
    found = box_gradients(residuals, smooth_beta=1.0, alpha=0.5, gamma=1.5, beta=1.0, form="paper")
    smooth = found["smooth_l1"]
    assert smooth["inliers"] == 0.75
    assert smooth["inlier_gradient"] == pytest.approx(1.5 / 2.5, rel=1e-4)
    assert smooth["outlier_gradient"] == pytest.approx(1.0 / 2.5, rel=1e-4)
    assert smooth["inlier_over_outlier"] == pytest.approx(0.5, rel=1e-4)
    b = math.exp(3) - 1
    inside = 0.5 * np.log(b * np.array([0.2, 0.5, 0.8]) + 1)
    balanced = found["balanced_l1"]
    assert balanced["inlier_gradient"] == pytest.approx(inside.sum() / (inside.sum() + 1.5), rel=1e-4)
    assert balanced["inlier_over_outlier"] == pytest.approx(inside.mean() / 1.5, rel=1e-4)
    assert found["residuals"] == 4 and found["paper_inlier_over_outlier"] == 0.3


def test_each_loss_has_its_own_inliers():
    residuals = torch.tensor([[0.05, 0.1, 0.5, 2.0]])
    found = box_gradients(residuals, smooth_beta=0.11, alpha=0.5, gamma=1.5, beta=1.0, form="paper")
    assert (found["smooth_l1"]["beta"], found["balanced_l1"]["beta"]) == (0.11, 1.0)
    assert (found["smooth_l1"]["inliers"], found["balanced_l1"]["inliers"]) == (0.5, 0.75)


def test_uniform_residuals_under_smooth_l1_give_inliers_a_third():
    """Over 0..2 with beta 1: inside the slopes add up to 1 / 2, outside to 1."""
    x = (np.arange(40_000) + 0.5) / 20_000
    found = split(x.reshape(-1, 4), np.minimum(x, 1).reshape(-1, 4), 1.0)
    assert found["inlier_gradient"] == pytest.approx(1 / 3, abs=1e-4)
    assert found["inlier_over_outlier"] == pytest.approx(0.5, abs=1e-4)


@pytest.mark.parametrize("residuals", [torch.zeros(0, 4), torch.full((2, 4), 0.1)])
def test_without_outliers_there_is_no_ratio(residuals):
    found = box_gradients(residuals, smooth_beta=1.0, alpha=0.5, gamma=1.5, beta=1.0, form="paper")
    assert found["smooth_l1"]["inlier_over_outlier"] is None
    assert found["smooth_l1"]["inliers"] == (1.0 if len(residuals) else None)
