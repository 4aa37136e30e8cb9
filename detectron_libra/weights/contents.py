# SPDX-License-Identifier: Apache-2.0
"""What a file of weights holds, whatever format it came in: everything under the names of our models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

#: ``Weights.kind`` of our own files.
OURS = "detectron_libra"


@dataclass(frozen=True)
class Weights:
    """Weights that were read from a file.

    Attributes:
        source: path or address, for messages.
        kind: the format, such as ``detectron_libra``, ``detectron``, ``mmdetection``, ``torchvision``, ``detectron2``.
        state: name of our model -> tensor on the CPU.
        metadata: texts that go with them: ``config`` (YAML), ``class_names`` (a JSON list), ``iteration``.
        settings: configuration keys that these weights need, with their values: geometry, preprocessing, architecture
            details that do not show in shapes. In files of our own: what the weights that they began with needed.
        momentum: parameter of our model -> Detectron's momentum V, which includes the learning rate.
        preserved: what the file holds and the model does not use, under the file's own names.
        backbone_only: weights to begin a training with, such as those of ImageNet: layers they lack stay fresh.
    """

    source: str
    kind: str
    state: Mapping[str, Tensor]
    metadata: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, object] = field(default_factory=dict)
    momentum: Mapping[str, Tensor] = field(default_factory=dict)
    preserved: Mapping[str, np.ndarray] = field(default_factory=dict)
    backbone_only: bool = False
