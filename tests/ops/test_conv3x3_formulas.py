# SPDX-License-Identifier: Apache-2.0
"""Winograd's identity, of the very functions that the kernels run: A' ((G g G') * (B' d B)) A is the convolution."""

import numpy as np
import pytest

_math = pytest.importorskip("detectron_libra._math")


def correlate(d, g, tile):
    """What a convolution layer computes, written out."""
    return np.array([[(d[y : y + 3, x : x + 3] * g).sum() for x in range(tile)] for y in range(tile)])


@pytest.mark.parametrize("tile", [2, 4])
def test_identity(tile):
    """Whole numbers divided by 576 = 24^2: every intermediate of the exact identity is a float32 to the last digits."""
    transform = {name: getattr(_math, f"winograd{tile}_{name}") for name in ("input", "weight", "output")}
    rng = np.random.default_rng(tile)
    for _ in range(50):
        d = rng.integers(-9, 10, (tile + 2, tile + 2)).astype(np.float32)
        g = (rng.integers(-9, 10, (3, 3)) * 576).astype(np.float32)
        got = transform["output"](transform["weight"](g) * transform["input"](d))
        np.testing.assert_array_equal(got, correlate(d.astype(float), g.astype(float), tile))


@pytest.mark.parametrize("name", ["winograd2_input", "winograd4_weight"])
def test_another_shape_is_refused(name):
    with pytest.raises(ValueError, match="x must be square"):
        getattr(_math, name)(np.zeros((2, 5), np.float32))
