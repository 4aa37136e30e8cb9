# SPDX-License-Identifier: Apache-2.0
"""Gradients times one number in plain PyTorch: the definition that the kernels must match."""

from collections.abc import Sequence

from torch import Tensor


def scale_gradient_reference(gradients: Sequence[Tensor], factor: Tensor) -> None:
    """See `detectron_libra.ops.scale_gradient.scale_gradient_`."""
    for gradient in gradients:
        gradient.mul_(factor)
