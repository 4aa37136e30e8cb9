# SPDX-License-Identifier: Apache-2.0
"""The order of anchors in a head's raw output: image rows, columns, anchors of the cell; levels one after another."""

from collections.abc import Sequence

import torch
from torch import Tensor


def per_anchor(raw: Tensor, values: int) -> Tensor:
    """A head's output with one row per anchor.

    Args:
        raw: (N, A*V, H, W), anchor-major channels.
        values: V, numbers per anchor.

    Returns:
        (N, H*W*A, V); a view where ``raw`` is channels_last.
    """
    return raw.permute(0, 2, 3, 1).reshape(raw.shape[0], -1, values)


def cat_levels(levels: Sequence[Tensor], values: int) -> Tensor:
    """All levels of a head's output, one row per anchor: (N, M, V) float32."""
    return torch.cat([per_anchor(level, values) for level in levels], dim=1).float()


def gather_rows(table: Tensor, index: Tensor) -> Tensor:
    """``out[n, m] = table[n, index[n, m]]`` for table (N, G, V) and index (N, M); zeros when G is 0."""
    if table.shape[1] == 0:
        return table.new_zeros((*index.shape, table.shape[2]))
    return table.gather(1, index[..., None].expand(-1, -1, table.shape[2]))
