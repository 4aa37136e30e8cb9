# SPDX-License-Identifier: Apache-2.0
"""The logarithm and exponential that vectorise: their error against float80, over the whole range."""

import numpy as np
import pytest

_math = pytest.importorskip("detectron_libra._math")


def units_in_the_last_place(got, exact):
    return np.abs(got - exact) / np.spacing(np.maximum(np.abs(exact.astype(np.float32)), np.float32(1e-38)))


def test_log1p_is_within_three_units_in_the_last_place():
    x = np.concatenate([np.logspace(-37, 38, 400001), np.linspace(0, 3, 200001)]).astype(np.float32)
    exact = np.log1p(x.astype(np.longdouble))
    assert units_in_the_last_place(_math.log1p_nonnegative(x), exact).max() < 3
    assert _math.log1p_nonnegative(np.float32(0)) == 0


def test_exponential_is_within_two_units_in_the_last_place():
    x = np.linspace(-87.2, 88.2, 800001).astype(np.float32)
    exact = np.exp(x.astype(np.longdouble))
    assert units_in_the_last_place(_math.exponential(x), exact).max() < 2


def test_exponential_at_the_ends():
    inf, nan = np.inf, np.nan
    got = _math.exponential(np.array([-inf, -1e9, 0.0, 1e9, inf, nan], np.float32))
    assert got[:3].tolist() == [0.0, 0.0, 1.0]
    assert (got[3:5] > 2e38).all()
    assert np.isnan(got[5])
