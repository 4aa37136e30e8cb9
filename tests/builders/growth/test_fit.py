# SPDX-License-Identifier: Apache-2.0
"""The exponent of made-up costs."""

import numpy as np
import pytest

from detectron_libra.builders.growth.fit import LINEAR, exponent, is_linear

SIZES = (1, 10, 100, 300, 1000, 3000, 10_000)


@pytest.mark.parametrize("fixed", [0.0, 1.0, 100.0])
@pytest.mark.parametrize("power", [0.5, 1.0, 1.5, 2.0])
def test_the_exponent_is_found_whatever_is_paid_at_any_size(power, fixed):
    found = exponent(SIZES, [fixed + 0.5 * size**power for size in SIZES])
    if fixed > 0.5 * SIZES[-2] ** power:
        assert found is None or found == pytest.approx(power, abs=0.05)
    else:
        assert found == pytest.approx(power, abs=0.02)


def test_a_cost_of_size_and_its_logarithm_is_linear_and_a_square_beside_a_larger_line_is_not():
    assert is_linear(exponent(SIZES[1:], [size * np.log(size) for size in SIZES[1:]]))
    assert not is_linear(exponent(SIZES, [size + 1e-3 * size**2 for size in SIZES]))


@pytest.mark.parametrize(
    "costs",
    [
        [5.0] * 7,
        [5.0, 4.9, 5.2, 5.1, 4.8, 5.3, 9.9],
        [0.0] * 7,
        [9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0],
    ],
)
def test_a_cost_that_does_not_double_has_no_exponent_and_is_linear(costs):
    assert exponent(SIZES, costs) is None
    assert is_linear(None)


@pytest.mark.parametrize(("power", "linear"), [(1.0, True), (1.5, False)])
def test_a_peak_that_is_one_of_two_things_is_fitted_where_it_is_the_growing_one(power, linear):
    costs = [max(400.0, size**power) for size in SIZES]
    found = exponent(SIZES, costs, sums=False)
    assert found == pytest.approx(power, abs=0.01) and is_linear(found) == linear
    assert not is_linear(exponent(SIZES, [400.0 + size**2 for size in SIZES], sums=False))


def test_only_the_last_decade_counts():
    costs = [size**2 if size < 1000 else 1e6 + 1e3 * (size - 1000) for size in SIZES]
    assert exponent(SIZES, costs) == pytest.approx(1.0, abs=0.02)


def test_one_size_or_two_tell_nothing():
    assert exponent([5], [1.0]) is None and exponent([5, 50], [1.0, 10.0]) is None


def test_noise_of_a_tenth_does_not_make_a_line_a_curve():
    rng = np.random.default_rng(0)
    found = [exponent(SIZES, [(1 + s) * rng.uniform(0.95, 1.05) for s in SIZES]) for _ in range(50)]
    assert max(found) < LINEAR
