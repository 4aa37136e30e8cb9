# SPDX-License-Identifier: Apache-2.0
"""Multiplies gradients that a loss wrote in its forward pass by the gradient that arrives in the backward pass."""

from collections.abc import Sequence

import torch
from torch import Tensor

from detectron_libra.ops.backend import is_built, use_compiled
from detectron_libra.ops.scale_gradient.reference import scale_gradient_reference

__all__ = ["scale_gradient_", "scale_gradient_reference"]

if is_built():
    _kernel = torch.ops.detectron_libra.scale_gradient_.default

    @torch.library.register_fake("detectron_libra::scale_gradient_")
    def _(gradients, factor):
        return None


@torch.no_grad()
def scale_gradient_(gradients: Sequence[Tensor], factor: Tensor) -> None:
    """Multiplies in place; a factor of 1 touches no memory, and the host does not wait to see it.

    Args:
        gradients: floating, of one dtype and device, each contiguous or channels_last.
        factor: 0-d, float64 for float64 gradients and float32 for any other.

    Raises:
        RuntimeError: dtypes or devices that do not match, naming the argument.
    """
    gradients = list(gradients)
    if use_compiled(factor):
        _kernel(gradients, factor)
    else:
        scale_gradient_reference(gradients, factor)
