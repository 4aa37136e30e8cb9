# SPDX-License-Identifier: Apache-2.0
"""Generated images and boxes, the same for every contender."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from detectron_libra.builders.benchmark.plan import Order, Size
from detectron_libra.builders.check import draw_proposals
from detectron_libra.builders.proposals import needs_proposals
from detectron_libra.builders.rules import geometry_of
from detectron_libra.structures import Batch, ImageMeta, Targets

#: Batches that are made once and come again and again.
DISTINCT = 4
#: Sides of boxes as shares of the image's.
SMALLEST, LARGEST = 0.05, 0.5


class Scene(NamedTuple):
    """A batch before it has anybody's form.

    Attributes:
        images: (N, 3, H, W) uint8 RGB.
        boxes: (N, G, 4) float32 x1 y1 x2 y2 in pixels, the last two exclusive.
        classes: (N, G) int64, 1..C-1.
    """

    images: Tensor
    boxes: Tensor
    classes: Tensor


def draw_scene(seed: int, *, images: int, size: Size, boxes: int, num_classes: int) -> Scene:
    """Noise, and boxes anywhere in it."""
    random = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (images, 3, *size), dtype=torch.uint8, generator=random)
    sides = SMALLEST + (LARGEST - SMALLEST) * torch.rand((images, boxes, 2), generator=random)
    corners = (1 - sides) * torch.rand((images, boxes, 2), generator=random)
    scale = torch.tensor([size.width, size.height])
    where = torch.cat([corners * scale, (corners + sides) * scale], -1)
    classes = torch.randint(1, num_classes, (images, boxes), generator=random)
    return Scene(pixels, where, classes)


def scenes(order: Order, num_classes: int) -> list[Scene]:
    """What all contenders of a mode work on."""
    return [
        draw_scene(seed, images=order.batch, size=order.size, boxes=order.boxes, num_classes=num_classes)
        for seed in range(DISTINCT)
    ]


def as_batch(order: Order, scene: Scene) -> Batch:
    """A batch as our loader would make it, padded as the order says."""
    cfg, images, size = order.cfg, scene.images, order.size
    high, wide = size.padded(order.pad_to)
    dtype = torch.float32 if geometry_of(cfg).resize_in_float else torch.uint8
    canvas = torch.zeros((len(images), 3, high, wide), dtype=dtype)
    canvas[..., : size.height, : size.width] = images
    sizes = torch.tensor([list(size)] * len(images))
    metas = tuple(ImageMeta(k, f"generated image {k}", *size, scale=1.0) for k in range(len(images)))
    proposals = None
    if needs_proposals(cfg):
        proposals = draw_proposals(np.random.default_rng(cfg.RNG_SEED), sizes)
    if order.contender.mode == "test":
        return Batch(canvas, sizes, None, metas, proposals=proposals)
    extent = torch.tensor([0, 0, 1, 1]) * geometry_of(cfg).extent
    targets = Targets(scene.boxes - extent, scene.classes, torch.zeros_like(scene.classes, dtype=torch.bool))
    return Batch(canvas, sizes, targets, metas, proposals=proposals)


def endless(batches: list[Batch], *, pinned: bool) -> Iterator[Batch]:
    """One after the other, for ever."""
    return cycle([batch.pin_memory() for batch in batches] if pinned else batches)
