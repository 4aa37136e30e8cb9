# SPDX-License-Identifier: Apache-2.0
"""Index rules of the pyramid, as CPU and CUDA compile them, against torch for every pair of sizes."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

_math = pytest.importorskip("detectron_libra._math")

# Sizes where float32 rounding decides (both ways round), ratios of image pyramids, and sizes of large images.
PAIRS = [(26, 44), (14, 46), (50, 198), (58, 230), (16, 122), (25, 13), (13, 50), (21, 84), (334, 167)]
PAIRS += [(m, n) for n, m in PAIRS] + [(1, 4096), (4096, 1), (1999, 2000), (2000, 333), (4095, 1024)]
ALL = [(n, m) for n in range(1, 131) for m in range(1, 131)]


def axes(n, m):
    return np.arange(m), np.full(m, n), np.full(m, m)


def torch_nearest(n, m):
    image = torch.arange(n, dtype=torch.float32).view(1, 1, n, 1)
    return F.interpolate(image, size=(m, 1), mode="nearest").flatten().numpy()


def test_nearest_is_torchs_for_all_sizes_up_to_130():
    for n, m in ALL + PAIRS:
        np.testing.assert_array_equal(_math.pyramid_nearest(*axes(n, m)), torch_nearest(n, m), f"{n} to {m}")


def test_windows_begin_and_end_where_torch_pools_for_all_sizes_up_to_130():
    for n, m in ALL + PAIRS:
        rising = torch.arange(n, dtype=torch.float32).view(1, 1, n, 1)
        last = F.adaptive_max_pool2d(rising, (m, 1)).flatten().numpy()
        first = -F.adaptive_max_pool2d(-rising, (m, 1)).flatten().numpy()
        np.testing.assert_array_equal(_math.pyramid_window_begin(*axes(n, m)), first, f"{n} to {m}")
        np.testing.assert_array_equal(_math.pyramid_window_end(*axes(n, m)), last + 1, f"{n} to {m}")


def test_copies_invert_nearest():
    """Cell s is copied by the cells in [copies_begin, copies_end), and by no other."""
    for n, m in ALL + PAIRS:
        source, s = torch_nearest(n, m), np.arange(n)
        arguments = s, np.full(n, n), np.full(n, m)
        np.testing.assert_array_equal(_math.pyramid_copies_begin(*arguments), np.searchsorted(source, s))
        ends = np.searchsorted(source, s, side="right")
        np.testing.assert_array_equal(_math.pyramid_copies_end(*arguments), ends, f"{n} to {m}")


def test_windows_read_backwards_are_the_windows_around_a_cell():
    for n, m in ALL:
        k, y = np.arange(m)[None], np.arange(n)[:, None]
        inside = (_math.pyramid_window_begin(k, n, m) <= y) & (y < _math.pyramid_window_end(k, n, m))
        around = (_math.pyramid_window_begin(y, m, n) <= k) & (k < _math.pyramid_window_end(y, m, n))
        np.testing.assert_array_equal(inside, around, f"{n} to {m}")


@pytest.mark.parametrize("size, target", [((37, 26), (19, 13)), ((25, 42), (13, 21)), ((7, 5), (9, 3))])
def test_places_of_maxima_are_torchs(size, target):
    """Place p of a window w columns wide is its row p // w, column p % w; ties go to the first of them."""
    (n, m), (h, w) = size, target
    values = torch.randint(-2, 3, (1, 1, n, m), generator=torch.Generator().manual_seed(n)).float()
    _, flat = F.adaptive_max_pool2d(values, target, return_indices=True)
    levels = [values.contiguous(), torch.zeros(1, 1, h, w)]
    (places,) = torch.ops.detectron_libra.pyramid_integrate(levels, 1, True)[1]
    assert places.dtype == torch.uint8
    top, left = _math.pyramid_window_begin(*axes(n, h)), _math.pyramid_window_begin(*axes(m, w))
    width = _math.pyramid_window_end(*axes(m, w)) - left
    p = places[0, 0].numpy().astype(np.int64)
    got = (top[:, None] + p // width) * m + left + p % width
    np.testing.assert_array_equal(got, flat[0, 0].numpy())
