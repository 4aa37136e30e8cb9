# SPDX-License-Identifier: Apache-2.0
"""Stage 5 of a ResNet: a part of the backbone, or the box head of a model without a pyramid."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from detectron_libra.weights.contents import Weights

IN_BACKBONE, IN_HEAD = "backbone.res5.", "regions.head.res5."


def place_c5(weights: Weights, names: Iterable[str]) -> Weights:
    """The weights with stage 5 where a model has it.

    Weights of ImageNet are those of a whole ResNet and do not know which model will read them.

    Args:
        weights: from any file.
        names: of the model's state.
    """
    if not weights.backbone_only or not any(name.startswith(IN_HEAD) for name in names):
        return weights
    state = {_moved(name): tensor for name, tensor in weights.state.items()}
    return replace(weights, state=state)


def _moved(name: str) -> str:
    return IN_HEAD + name.removeprefix(IN_BACKBONE) if name.startswith(IN_BACKBONE) else name
