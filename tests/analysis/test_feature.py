# SPDX-License-Identifier: Apache-2.0
"""Levels of a pyramid: energies, similarities, contributions and gradients worked out by hand."""

import pytest
import torch

from detectron_libra.analysis.feature import (
    PyramidStatistics,
    at_one_size,
    contributions,
    energies,
    norms,
    similarities,
)
from detectron_libra.modeling.necks.balanced_pyramid import BalancedFeaturePyramid
from detectron_libra.ops.pyramid import integrate


def pyramid(*sides, channels=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, channels, side, side, generator=generator) for side in sides]


def test_energy_is_the_root_of_the_mean_square_and_a_norm_the_root_of_the_sum():
    levels = [torch.full((1, 2, 3, 3), 2.0), torch.tensor([[[[3.0, -4.0]]]])]
    assert energies(levels).tolist() == pytest.approx([2.0, 12.5**0.5])
    assert norms(levels).tolist() == pytest.approx([72**0.5, 5.0])


def test_levels_at_one_size_average_to_the_integrated_map():
    levels = pyramid(13, 7, 4, 2)
    resized = at_one_size(levels, 1)
    assert resized.shape == (4, 2, 4, 7, 7) and torch.equal(resized[1], levels[1])
    torch.testing.assert_close(resized.mean(0), integrate(levels, 1))


def test_contributions_add_up_to_one_and_are_equal_for_equal_levels():
    resized = at_one_size(pyramid(8, 4, 2), 1)
    assert contributions(resized).sum().item() == pytest.approx(1)
    same = torch.randn(1, 2, 3, 4, 4).expand(5, -1, -1, -1, -1)
    assert contributions(same).tolist() == pytest.approx([0.2] * 5)
    # the mean of x and 3 x is 2 x: <x, 2x> / (2 <2x, 2x>) = 1/4, <3x, 2x> / (2 <2x, 2x>) = 3/4
    assert contributions(torch.stack([same[0], 3 * same[0]])).tolist() == pytest.approx([0.25, 0.75])


def test_similarity_is_the_cosine_of_the_channels_of_a_cell():
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [-2.0, 0.0]])[:, None, :, None, None]
    found = similarities(x.expand(-1, 3, -1, 5, 5))
    half = 0.5**0.5
    expected = [[1, 0, half, -1], [0, 1, half, 0], [half, half, 1, -half], [-1, 0, -half, 1]]
    assert found.flatten().tolist() == pytest.approx(torch.tensor(expected).flatten().tolist(), abs=1e-6)


def test_behind_integration_every_level_teaches_every_other():
    """With levels of one size y_l = x_l + mean(x), so that the gradient of x_k is g_k + mean(g)."""
    levels = pyramid(4, 4, 4)
    taught = [torch.zeros(2, 4, 4, 4), torch.ones(2, 4, 4, 4), torch.zeros(2, 4, 4, 4)]
    statistics = PyramidStatistics((3, 4, 5), 1, None)
    statistics.add(levels, taught)
    found = statistics.tables()
    size = (2 * 4 * 4 * 4) ** 0.5
    assert [one["gradient_after"] for one in found["levels"].values()] == pytest.approx(
        [0, size, 0], rel=1e-4
    )
    before = [one["gradient_before"] for one in found["levels"].values()]
    assert before == pytest.approx([size / 3, size * 4 / 3, size / 3], rel=1e-4)
    assert found["gradient_shares"]["before"] == pytest.approx([1 / 6, 2 / 3, 1 / 6], rel=1e-4)
    assert found["balanced_by"].startswith("integration") and found["integrated_at"] == "P4"


def test_the_models_own_pyramid_is_measured_where_it_has_one():
    torch.manual_seed(0)
    module = BalancedFeaturePyramid(4, levels=(3, 4, 5), refine_level=4, init="xavier")
    levels = pyramid(8, 4, 2)
    statistics = PyramidStatistics((3, 4, 5), module.refine_index, module)
    statistics.add(levels, [torch.ones_like(level) for level in levels])
    found = statistics.tables()
    with torch.no_grad():
        after = energies(module(levels))
    assert found["balanced_by"] == "the model"
    assert [one["energy_after"] for one in found["levels"].values()] == pytest.approx(
        after.tolist(), rel=1e-4
    )
    assert all(parameter.grad is None for parameter in module.parameters())


def test_batches_are_averaged():
    statistics = PyramidStatistics((3, 4), 0, None)
    for factor in (1.0, 3.0):
        levels = [torch.full((1, 1, 2, 2), factor), torch.full((1, 1, 1, 1), factor)]
        statistics.add(levels, [torch.zeros_like(level) for level in levels])
    found = statistics.tables()
    assert found["levels"]["P3"]["energy_before"] == 2 and found["mean_similarity"] == {
        "before": 1,
        "after": 1,
    }
