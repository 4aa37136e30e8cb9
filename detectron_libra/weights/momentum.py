# SPDX-License-Identifier: Apache-2.0
"""Detectron's momentum, which includes the learning rate, and PyTorch's, which does not.

Detectron: V = momentum * V + lr * gradient, and the weights lose V. Gradients of biases count twice, so that V of a
bias includes twice the rate. PyTorch: b = momentum * b + gradient, and the weights lose lr * b; here biases have a
rate of their own, ``bias_lr_factor`` times that of the weights. Hence V = rate of the parameter * b. Each way is
one multiplication, rounded once to float32; exact where the rate is a power of two.

Source: Detectron's modeling/optimizer.py; Caffe2's momentum_sgd_op.h.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from detectron_libra.errors import UsageError


def to_torch_momentum(
    momentum: Mapping[str, Tensor], lr: float, *, bias_lr_factor: float = 2.0
) -> dict[str, Tensor]:
    """Detectron's V as momentum buffers of PyTorch.

    Args:
        momentum: parameter -> V, float32.
        lr: of weights, at the last step that the file's training did.
        bias_lr_factor: rate of biases over it, in the optimizer that gets the buffers.

    Returns:
        Parameter -> buffer, float32.

    Raises:
        UsageError: ``lr`` is not positive.
    """
    return {name: _scaled(v, 1, _rate(name, lr, bias_lr_factor)) for name, v in momentum.items()}


def from_torch_momentum(
    buffers: Mapping[str, Tensor], lr: float, *, bias_lr_factor: float = 2.0
) -> dict[str, Tensor]:
    """Momentum buffers of PyTorch as Detectron's V; arguments and errors as ``to_torch_momentum``."""
    return {name: _scaled(b, _rate(name, lr, bias_lr_factor), 1) for name, b in buffers.items()}


def _rate(name: str, lr: float, bias_lr_factor: float) -> float:
    if not lr > 0:
        raise UsageError(f"learning rate {lr}: momentum cannot be converted with it; give one above 0")
    return lr * bias_lr_factor if name.endswith("bias") else lr


def _scaled(tensor: Tensor, factor: float, divisor: float) -> Tensor:
    return (tensor.detach().cpu().to(torch.float64) * factor / divisor).to(torch.float32)
