# SPDX-License-Identifier: Apache-2.0
"""Initial weights of convolutions and linear layers, by the name of the rule."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn


def xavier_fill_(layer: nn.Module) -> None:
    """Caffe2's XavierFill: weight uniform in +-sqrt(3 / fan_in), bias 0.

    Not torch's ``xavier_uniform_``, whose variance counts the outputs as well.
    Source: Caffe2 filler_op.h; Detectron's default for every convolution and linear layer.
    """
    nn.init.kaiming_uniform_(layer.weight, nonlinearity="linear")
    zero_bias_(layer)


def xavier_uniform_(layer: nn.Module) -> None:
    """Glorot's rule: weight uniform in +-sqrt(6 / (fan_in + fan_out)), bias 0."""
    nn.init.xavier_uniform_(layer.weight)
    zero_bias_(layer)


def kaiming_normal_(layer: nn.Module) -> None:
    """He's rule for a layer before a ReLU: weight N(0, sqrt(2 / fan_out)), bias 0."""
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    zero_bias_(layer)


def normal_(layer: nn.Module, std: float) -> None:
    """Weight N(0, ``std``), bias 0."""
    nn.init.normal_(layer.weight, std=std)
    zero_bias_(layer)


def zero_(layers: Iterable[nn.Module]) -> None:
    """Weight and bias 0."""
    for layer in layers:
        nn.init.zeros_(layer.weight)
        zero_bias_(layer)


def zero_bias_(layer: nn.Module) -> None:
    """Bias 0, where the layer has one."""
    if getattr(layer, "bias", None) is not None:
        nn.init.zeros_(layer.bias)
