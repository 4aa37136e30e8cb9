# SPDX-License-Identifier: Apache-2.0
"""Boxes as deltas of other boxes, and back.

Letters: any leading dimensions; every box is x1 y1 x2 y2 in pixels, ``extent`` pixels wider than x2 - x1.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from detectron_libra.ops.balanced_l1.levels_reference import centre_and_size, encode_reference

#: Bound of log width and height when decoding: a box of 16 pixels becomes at most 1000.
LOG_SIZE_CLIP = math.log(1000 / 16)


def encode(
    boxes: Tensor, targets: Tensor, *, weights: Sequence[float] = (1, 1, 1, 1), extent: float
) -> Tensor:
    """What a regressor has to say to turn ``boxes`` into ``targets``.

    Boxes without a target should be given themselves as target; their deltas are then 0. Rows without area
    (padding) give finite numbers.

    Args:
        boxes: (..., 4) anchors or proposals, pixels.
        targets: (..., 4) pixels, broadcast against ``boxes``.
        weights: factors of dx, dy, dw, dh.
        extent: pixels added to x2 - x1 to get a width.

    Returns:
        (..., 4) float32 (dx, dy in units of the box's sides; dw, dh logarithms).

    Source: Detectron's utils/boxes.py (extent 1); mmdetection's DeltaXYWHBBoxCoder with stds 1/weights (0).
    """
    deltas = encode_reference(boxes.float(), targets.float(), extent)
    if tuple(weights) == (1, 1, 1, 1):
        return deltas
    return torch.stack([w * delta for w, delta in zip(weights, deltas.unbind(-1), strict=True)], -1)


def decode(
    deltas: Tensor,
    boxes: Tensor,
    *,
    weights: Sequence[float] = (1, 1, 1, 1),
    extent: float,
    clip: float = LOG_SIZE_CLIP,
    clip_shrinking: bool,
) -> Tensor:
    """Boxes that deltas make of ``boxes``; the inverse of ``encode`` within the bound of growth.

    Args:
        deltas: (..., 4); boxes: (..., 4) pixels, broadcast against the deltas.
        weights: divisors of dx, dy, dw, dh.
        extent: pixels added to x2 - x1 to get a width.
        clip: largest log growth of a side.
        clip_shrinking: the same bound holds for shrinking.

    Returns:
        (..., 4) float32 pixels, float64 for float64 deltas, not clipped to any image.

    Source: as ``encode``.
    """
    centre, size = centre_and_size(boxes.float(), extent)
    wide = deltas if deltas.dtype == torch.float64 else deltas.float()
    dx, dy, dw, dh = wide.unbind(-1)
    wx, wy, ww, wh = weights
    shift = torch.stack((dx / wx, dy / wy), -1)
    stretch = torch.stack((dw / ww, dh / wh), -1).clamp(min=-clip if clip_shrinking else None, max=clip)
    centre = centre + shift * size
    half = 0.5 * stretch.exp() * size
    return torch.cat((centre - half, centre + half - extent), -1)


def clip_to_size(boxes: Tensor, sizes: Tensor, *, extent: float) -> Tensor:
    """Boxes cut at the image's border.

    Args:
        boxes: (N, ..., 4) pixels.
        sizes: (N, 2) height and width of each image in pixels.
        extent: the last corner is at width - extent.

    Returns:
        (N, ..., 4), every x in 0..width - extent and y in 0..height - extent.
    """
    last = (sizes.flip(1) - extent).to(boxes.dtype).repeat(1, 2)
    last = last.view(-1, *(1,) * (boxes.dim() - 2), 4)
    return torch.minimum(boxes.clamp(min=0), last.clamp(min=0))
