# SPDX-License-Identifier: Apache-2.0
"""Whether Winograd's algorithm pays for a convolution on a CPU, and with which tile."""

from functools import lru_cache

import torch

#: What the kernels take at once; other numbers of channels are left to PyTorch.
LANES = 16
#: Tiles by dtype, the largest first. A larger tile saves products and costs digits: 4 would leave bfloat16 with none
#: to spare (measured: an error of 2 % of the outputs' size, against 0.4 % with 2 and 0.2 % without).
TILES = {torch.float32: (4, 2), torch.bfloat16: (2,)}
#: Planes larger than this are not worth their memory.
MOST_BYTES = 512 * 2**20
#: Gains below it are within what the estimate can err by.
WORTH = 0.9

# Costs in multiply-adds of a direct convolution, which runs at the processor's peak: of a multiply-add inside of the
# matrix products, and of moving one element into or out of a plane, by dtype. The elements of the weights are moved
# once and read by the products, from memory more often than not.
_PRODUCT = {torch.float32: 1.35, torch.bfloat16: 1.2}
_MOVED = {torch.float32: 35.0, torch.bfloat16: 45.0}
_WEIGHT = {torch.float32: 40.0, torch.bfloat16: 60.0}


@lru_cache(maxsize=4096)
def tile_of(
    sizes: tuple[tuple[int, int, int], ...], channels_in: int, channels_out: int, dtype: torch.dtype
) -> int:
    """The tile that computes a 3x3 convolution soonest, 0 for the direct sum.

    Args:
        sizes: (N, H, W) of each level.
        channels_in, channels_out: of the convolution.
        dtype: of the levels.
    """
    if dtype not in TILES or channels_in % LANES or channels_out % LANES:
        return 0
    direct = 9 * sum(n * h * w for n, h, w in sizes) * channels_in * channels_out
    costs = {tile: cost(sizes, channels_in, channels_out, tile, dtype) for tile in TILES[dtype]}
    best = min(costs, key=lambda tile: costs[tile])
    return best if costs[best] < WORTH * direct else 0


def cost(
    sizes: tuple[tuple[int, int, int], ...],
    channels_in: int,
    channels_out: int,
    tile: int,
    dtype: torch.dtype,
) -> float:
    """In multiply-adds of the direct sum; infinite where the planes take too much memory."""
    planes = (tile + 2) ** 2
    tiles = sum(n * -(-h // tile) * -(-w // tile) for n, h, w in sizes)
    moved = planes * tiles * (channels_in + channels_out)
    if moved * dtype.itemsize > MOST_BYTES:
        return float("inf")
    products = planes * tiles * channels_in * channels_out
    weights = planes * channels_in * channels_out
    return _PRODUCT[dtype] * products + _MOVED[dtype] * moved + _WEIGHT[dtype] * weights
