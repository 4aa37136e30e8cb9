# SPDX-License-Identifier: Apache-2.0
"""The sizes of a real training step: images, feature maps, boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from detectron_libra.benchmarks.case import Setup, generator

CHANNELS = 256
CLASSES = 80
#: Ground truth of a crowded image: COCO's images hold 7 boxes on average, and a batch is padded to its fullest.
GROUND_TRUTH = 20


@dataclass(frozen=True)
class Images:
    """A batch: height and width in pixels, number of images."""

    height: int
    width: int
    batch: int

    @property
    def name(self) -> str:
        """Such as 800x1344_b2."""
        return f"{self.height}x{self.width}_b{self.batch}"

    def cells(self, level: int) -> tuple[int, int]:
        """Height and width of the feature map of a pyramid's level, as strided convolutions give them."""
        return -(-self.height // 2**level), -(-self.width // 2**level)


TINY = Images(64, 96, 1)
LARGE = Images(800, 1344, 2)
LARGE_16 = Images(800, 1344, 16)
SMALL = Images(320, 320, 16)


def images(setup: Setup) -> list[Images]:
    """The batches to measure; 16 large images do not fit a CPU's patience."""
    if setup.quick:
        return [TINY]
    return [LARGE, LARGE_16, SMALL] if setup.device == "cuda" else [LARGE, SMALL]


def box_counts(setup: Setup) -> list[int]:
    """Boxes of a batch: what R-CNN samples from an image, and the anchors of RetinaNet."""
    return [16, 300] if setup.quick else [512, 200_000]


def channels(setup: Setup) -> int:
    """Channels of a feature map."""
    return 4 if setup.quick else CHANNELS


def map_variants(setup: Setup) -> list[tuple[Images, str, str]]:
    """(images, layout, dtype) of the operators that read feature maps.

    Without `full` a CPU measures what a training there uses, because every line costs half a minute.
    """
    every = [
        (batch, layout, dtype)
        for batch in images(setup)
        for layout in ("contiguous", "channels_last")
        for dtype in ("float32", "bfloat16")
    ]
    if setup.full or setup.quick:
        return every
    if setup.device == "cuda":
        return [v for v in every if v[1:] != ("contiguous", "bfloat16")]
    chosen = [
        (LARGE, "contiguous", "float32"),
        (LARGE, "channels_last", "float32"),
        (SMALL, "channels_last", "bfloat16"),
    ]
    return [v for v in every if v in chosen]


def feature_maps(
    setup: Setup, batch: Images, levels: Sequence[int], depth: int, layout: str, dtype: str
) -> list[Tensor]:
    """Random (N, depth, H_l, W_l) of each level, requiring gradients."""
    g = generator(setup)
    memory_format = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    return [
        torch.randn(batch.batch, depth, *batch.cells(level), generator=g, device=setup.device)
        .to(getattr(torch, dtype))
        .contiguous(memory_format=memory_format)
        .requires_grad_()
        for level in levels
    ]


def random_boxes(setup: Setup, shape: Sequence[int], batch: Images, seed: int = 1) -> Tensor:
    """(*shape, 4) float32 x1 y1 x2 y2 in pixels, inside the images; sides from 16 pixels to half an image, as
    many small as large ones on a scale of factors."""
    g = generator(setup, seed)
    at, side = (torch.rand(*shape, 2, generator=g, device=setup.device) for _ in range(2))
    size = torch.tensor([batch.width, batch.height], dtype=torch.float32, device=setup.device)
    least = min(16.0, batch.height / 8)
    side = least * (size / 2 / least) ** side
    low = at * (size - side)
    return torch.cat([low, low + side], -1)


def grid_boxes(setup: Setup, batch: Images, levels: Sequence[int], per_cell: int) -> Tensor:
    """(M, 4) float32: anchors of every cell, in the order level, row, column, anchor."""
    rows = []
    for level in levels:
        stride, (height, width) = 2**level, batch.cells(level)
        number = torch.arange(per_cell, device=setup.device)
        side = 4 * stride * 2 ** ((number // 3) / 3)
        ratio = 2.0 ** (number % 3 - 1)
        half = torch.stack([side / ratio.sqrt(), side * ratio.sqrt()], -1) / 2  # (A, 2)
        y = torch.arange(height, device=setup.device) * stride
        x = torch.arange(width, device=setup.device) * stride
        centre = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1)[:, :, None]
        rows.append(torch.cat([centre - half, centre + half], -1).view(-1, 4))
    return torch.cat(rows).float()
