# SPDX-License-Identifier: Apache-2.0
"""Pictures with boxes, small enough for dozens of them in one page."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..structures import Detections
from .arrays import numpy_of
from .pictures import draw

#: Longer side of a thumbnail in pixels, and its JPEG quality.
THUMBNAIL_PX, QUALITY = 480, 75


def thumbnail(
    image: Tensor,
    detections: Detections,
    truth: tuple[Any, Any],
    class_names: Sequence[str],
    *,
    threshold: float,
    extent: float,
) -> tuple[bytes, tuple[int, int]]:
    """What ``pictures.draw`` draws, as a small JPEG whose labels can be read.

    Args:
        image, detections, truth, class_names, threshold, extent: as in ``pictures.draw``.

    Returns:
        The file, and its width and height in pixels.
    """
    # Pictures shrink before they are drawn on: lines and labels keep their size.
    factor = min(1.0, THUMBNAIL_PX / max(image.shape[1:]))
    picture = draw(
        _resized(image, factor),
        Detections(_edges(detections.boxes, factor, extent), detections.scores, detections.classes),
        (_edges(truth[0], factor, extent), truth[1]),
        class_names,
        threshold=threshold,
        long_side=THUMBNAIL_PX,
    )
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=QUALITY, optimize=True)
    return content.getvalue(), picture.size


def _resized(image: Tensor, factor: float) -> Tensor:
    if factor == 1:
        return image
    picture = Image.fromarray(np.ascontiguousarray(numpy_of(image, np.uint8).transpose(1, 2, 0)))
    size = [max(1, round(side * factor)) for side in picture.size]
    array = np.array(picture.resize((size[0], size[1]), Image.Resampling.LANCZOS))
    return torch.from_numpy(array).permute(2, 0, 1)


def _edges(boxes: Any, factor: float, extent: float) -> Tensor:
    """Boxes up to their far edges, in pixels of the smaller picture."""
    edges = numpy_of(boxes, np.float64).reshape(-1, 4) + np.array([0, 0, extent, extent])
    return torch.from_numpy(edges * factor)
