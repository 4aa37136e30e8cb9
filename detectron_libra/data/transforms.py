# SPDX-License-Identifier: Apache-2.0
"""Resizing and flipping of images, with Detectron's arithmetic."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def resized(height: int, width: int, *, side: int, max_size: int) -> tuple[float, int, int]:
    """How an image is resized: its short side becomes ``side`` unless the long one would pass ``max_size``.

    Args:
        height, width: of the image, in pixels.
        side: wanted length of the short side, in pixels.
        max_size: most pixels the long side may have.

    Returns:
        (scale, height, width): resized / original, and the new sides in pixels, each at least 1.

    Source: Detectron's utils/blob.py (get_target_size, prep_im_for_blob).
    """
    short, long = min(height, width), max(height, width)
    scale = side / short
    if round(scale * long) > max_size:
        scale = max_size / long
    return scale, max(1, round(height * scale)), max(1, round(width * scale))


def resize(image: Tensor, size: tuple[int, int], *, scale: tuple[float, float], in_float: bool) -> Tensor:
    """Bilinear resizing.

    Args:
        image: (3, H, W) uint8.
        size: (height, width) wanted, in pixels.
        scale: resized / given for y and x, before the rounding of ``size``; used with ``in_float`` only.
        in_float: float32, unrounded, no antialiasing, as cv2.resize(fx=, fy=) on float pixels does it;
            otherwise uint8, antialiased, edge to edge.

    Returns:
        (3, height, width) float32 in 0..255 with ``in_float``, else uint8.
    """
    same = tuple(image.shape[1:]) == tuple(size)
    if in_float:
        pixels = image.float()
        if same:
            return pixels
        # Given scales are used as they are; without them the rounded sizes would shift the sampling points.
        return torch.ops.aten.upsample_bilinear2d(pixels[None], list(size), False, scale[0], scale[1])[0]
    if same:
        return image
    return functional.interpolate(image[None], size=size, mode="bilinear", antialias=True)[0]


def flip_image(image: Tensor, flip_x: bool, flip_y: bool) -> Tensor:
    """(3, H, W) mirrored left to right (x) and top to bottom (y)."""
    dims = [d for d, on in ((2, flip_x), (1, flip_y)) if on]
    return image.flip(dims) if dims else image
