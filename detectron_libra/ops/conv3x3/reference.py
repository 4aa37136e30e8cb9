# SPDX-License-Identifier: Apache-2.0
"""3x3 convolution of several levels in plain PyTorch: the definition that the kernels must match."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F


def conv3x3_reference(
    levels: Sequence[Tensor], weight: Tensor, bias: Tensor | None, *, relu: bool = False
) -> list[Tensor]:
    """See `detectron_libra.ops.conv3x3.conv3x3`."""
    dtype = levels[0].dtype if levels else weight.dtype
    weight, bias = weight.to(dtype), None if bias is None else bias.to(dtype)
    outputs = [F.conv2d(level, weight, bias, padding=1) for level in levels]
    return [output.relu_() for output in outputs] if relu else outputs
