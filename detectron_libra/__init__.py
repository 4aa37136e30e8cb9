# SPDX-License-Identifier: Apache-2.0
"""Libra R-CNN for RetinaNet and Faster R-CNN, in the shape of Detectron.

import detectron_libra
detections = detectron_libra.load("out/quickstart").predict(["image.jpg"])
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from detectron_libra.builders.predict import Predictor

__version__ = "0.1.0"


def load(place: str | os.PathLike, *, opts: Sequence[str] = ()) -> Predictor:
    """A trained detector from weights or from the output folder of a run.

    Args:
        place: a .safetensors or .pt file of ours, or an output folder.
        opts: ``[KEY, VALUE, ...]`` on top of the configuration in it, such as ``["DEVICE", "cpu"]``.
    """
    # Imported when called: `import detectron_libra.ops` alone must not read images or configurations.
    from detectron_libra.builders.predict import load as load_predictor

    return load_predictor(place, opts=opts)
