# SPDX-License-Identifier: Apache-2.0
"""One order of anchors everywhere: y, x, anchor of the cell; levels one after another."""

import torch

from detectron_libra.geometry import CONTINUOUS
from detectron_libra.modeling.anchors import AnchorGrid, base_anchors
from detectron_libra.modeling.layout import cat_levels, gather_rows, per_anchor


def numbered(n, a, v, h, w):
    """A head's output whose entries say where they are: image, anchor, value, y, x as digits."""
    axes = torch.meshgrid(*(torch.arange(s) for s in (n, a, v, h, w)), indexing="ij")
    code = sum(axis * 10**k for k, axis in enumerate(reversed(axes)))
    return code.reshape(n, a * v, h, w).float()


def test_rows_are_y_then_x_then_anchor_and_channels_are_anchor_major():
    n, a, v, h, w = 2, 3, 4, 2, 5
    rows = per_anchor(numbered(n, a, v, h, w), v)
    assert rows.shape == (n, h * w * a, v)
    for y in range(h):
        for x in range(w):
            for k in range(a):
                row = rows[1, (y * w + x) * a + k]
                assert row.tolist() == [10000 + k * 1000 + value * 100 + y * 10 + x for value in range(v)]


def test_the_order_is_that_of_the_anchors():
    """The anchor in row m stands at the cell that row m of the head's output came from."""
    base = base_anchors(8, [32], [0.5, 1, 2], geometry=CONTINUOUS)
    anchors = AnchorGrid([base], [8])([(3, 4)], "cpu")[0]
    axes = torch.meshgrid(torch.arange(3), torch.arange(4), indexing="ij")
    raw = torch.stack(axes)[None, None].expand(1, 3, 2, 3, 4).reshape(1, 6, 3, 4).float()
    cells = per_anchor(raw, 2)[0]
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    torch.testing.assert_close(centres.flip(1) / 8, cells)


def test_channels_last_is_read_without_a_copy():
    raw = torch.randn(2, 12, 5, 6).contiguous(memory_format=torch.channels_last)
    assert per_anchor(raw, 4).data_ptr() == raw.data_ptr()


def test_levels_follow_each_other_in_float32():
    fine, coarse = numbered(1, 2, 1, 2, 2).bfloat16(), numbered(1, 2, 1, 1, 1).bfloat16()
    rows = cat_levels([fine, coarse], 1)
    assert rows.shape == (1, 10, 1) and rows.dtype == torch.float32
    torch.testing.assert_close(rows[:, 8:], per_anchor(coarse, 1).float())


def test_gathered_rows_and_an_empty_table():
    table = torch.arange(24.0).view(2, 3, 4)
    index = torch.tensor([[2, 0], [1, 1]])
    out = gather_rows(table, index)
    assert out[0, 0].tolist() == table[0, 2].tolist() and out[1, 1].tolist() == table[1, 1].tolist()
    empty = gather_rows(torch.zeros(2, 0, 4), index)
    assert empty.shape == (2, 2, 4) and not empty.any()
