# SPDX-License-Identifier: Apache-2.0
"""3x3 convolution with stride 1, of one or several levels with the same weights, and the ReLU behind it.

On a CPU most of a detector's time goes into these. Winograd's algorithm needs 36 products for 16 outputs where the sum
itself has 144 (float32), or 16 for 4 where it has 36 (bfloat16, whose rounding allows no larger tile).

Source: Lavin and Gray, arXiv:1509.09308.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from detectron_libra.ops.backend import is_built, use_compiled
from detectron_libra.ops.conv3x3.plan import tile_of
from detectron_libra.ops.conv3x3.reference import conv3x3_reference

if is_built():
    from detectron_libra.ops.conv3x3 import kernels

__all__ = ["conv3x3", "conv3x3_reference", "tile_of"]


def conv3x3(
    levels: Sequence[Tensor], weight: Tensor, bias: Tensor | None = None, *, relu: bool = False
) -> list[Tensor]:
    """Convolves each level with the same 3x3 filters, stride 1, padding 1.

    Args:
        levels: L tensors (N_l, C, H_l, W_l) of one dtype. Under autocast they are converted to its dtype.
        weight: (K, C, 3, 3), bias: (K,) or None; float32, or of the levels' dtype.
        relu: return max(0, output).

    Returns:
        L tensors (N_l, K, H_l, W_l) of the levels' dtype, or autocast's. On a CPU, float32 and bfloat16 whose sizes
        `tile_of` finds worth it are computed by Winograd's algorithm, in channels_last; all others are PyTorch's own
        convolution. In float32 its error is about 4 times that of the direct sum, about 1e-6 of the outputs' size; in
        bfloat16 about 1.6 times, with sums and biases in float32. Results do not depend on the number of
        threads beyond those of torch.bmm.

    Raises:
        RuntimeError: shapes or dtypes that do not fit.
    """
    levels = list(levels)
    if not levels:
        return []
    device = levels[0].device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        levels = [level.to(dtype) for level in levels]
    tile = 0
    if device == "cpu" and weight.dtype == torch.float32 and use_compiled(levels[0]):
        sizes = tuple((level.shape[0], level.shape[2], level.shape[3]) for level in levels)
        tile = tile_of(sizes, weight.shape[1], weight.shape[0], levels[0].dtype)
    if tile == 0:
        return conv3x3_reference(levels, weight, bias, relu=relu)
    return list(kernels.Conv3x3.apply(weight, bias, relu, tile, *levels))
