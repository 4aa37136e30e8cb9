# SPDX-License-Identifier: Apache-2.0
"""RoIAlign over P2..P5, 7 x 7 bins of 2 x 2 samples: 512 boxes a batch, as R-CNN trains."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from detectron_libra.benchmarks.case import Case, Problem, Setup, size_in_bytes
from detectron_libra.benchmarks.peer import torchvision
from detectron_libra.benchmarks.sizes import Images, channels, feature_maps, map_variants, random_boxes
from detectron_libra.ops.roi_align import roi_align, roi_levels

LEVELS, STRIDES, SIDE, SAMPLES, BOXES = range(2, 6), (4, 8, 16, 32), 7, 2, 512
CHOICE = (224, 4, 2, 0.0)  # canonical scale and level, first level, extent


def cases(setup: Setup) -> list[Case]:
    """Every image size."""
    boxes = 16 if setup.quick else BOXES
    return [
        Case(
            "roi_align",
            f"{batch.name} {boxes} boxes",
            layout,
            dtype,
            partial(_problem, setup, batch, boxes, layout, dtype),
        )
        for batch, layout, dtype in map_variants(setup)
    ]


def eager(boxes: Tensor, image: Tensor, *levels: Tensor) -> Tensor:
    """As torchvision's MultiScaleRoIAlign: the boxes of each level apart, put back; samples by grid_sample."""
    level = roi_levels(boxes, len(levels), *CHOICE)
    out = levels[0].new_zeros(len(boxes), levels[0].shape[1], SIDE, SIDE)
    for number, features in enumerate(levels):
        for n in range(features.shape[0]):
            rows = ((level == number) & (image == n)).nonzero()[:, 0]
            pooled = _align_one(features[n : n + 1].float(), boxes[rows] / STRIDES[number])
            out = out.index_put((rows,), pooled.to(out.dtype))
    return out


def ours(boxes: Tensor, image: Tensor, *levels: Tensor) -> Tensor:
    """The operator: all levels in one call."""
    return roi_align(
        levels, boxes, image, strides=STRIDES, output_size=SIDE, sampling_ratio=SAMPLES, aligned=True,
        min_level=LEVELS[0], extent=0.0,
    )  # fmt: skip


def peer(boxes: Tensor, image: Tensor, *levels: Tensor) -> Tensor:
    """torchvision's kernel, level by level as its MultiScaleRoIAlign calls it."""
    level = roi_levels(boxes, len(levels), *CHOICE)
    rois = torch.cat([image[:, None].to(boxes.dtype), boxes], 1)
    out = levels[0].new_zeros(len(boxes), levels[0].shape[1], SIDE, SIDE)
    for number, features in enumerate(levels):
        rows = (level == number).nonzero()[:, 0]
        pooled = torchvision()[0].roi_align(
            features.float(), rois[rows], SIDE, 1 / STRIDES[number], SAMPLES, True
        )
        out = out.index_put((rows,), pooled.to(out.dtype))
    return out


def _align_one(features: Tensor, boxes: Tensor) -> Tensor:
    """(R, C, SIDE, SIDE) of boxes (R, 4) in cells on one map (1, C, H, W)."""
    height, width = features.shape[2:]
    steps = (torch.arange(SIDE * SAMPLES, device=boxes.device) + 0.5) / (SIDE * SAMPLES)
    x, y = (boxes[:, i, None] - 0.5 + (boxes[:, i + 2] - boxes[:, i])[:, None] * steps for i in (0, 1))
    # Bilinear sampling that clamps to the border, and nothing from more than a cell outside.
    inside = ((y >= -1) & (y <= height))[:, :, None] & ((x >= -1) & (x <= width))[:, None]
    place = (x * 2 / max(width - 1, 1) - 1, y * 2 / max(height - 1, 1) - 1)
    shape = inside.shape
    grid = torch.stack([place[0][:, None].expand(shape), place[1][:, :, None].expand(shape)], -1)
    grid = grid.reshape(1, -1, SIDE * SAMPLES, 2)
    values = F.grid_sample(features, grid, padding_mode="border", align_corners=True)[0]
    values = values.view(features.shape[1], *shape) * inside
    return F.avg_pool2d(values.transpose(0, 1), SAMPLES)


def _problem(setup: Setup, batch: Images, count: int, layout: str, dtype: str) -> Problem:
    levels = feature_maps(setup, batch, LEVELS, channels(setup), layout, dtype)
    boxes = random_boxes(setup, (count,), batch)
    image = torch.arange(count, device=setup.device) % batch.batch
    item, depth = levels[0].element_size(), channels(setup)
    out = count * depth * SIDE * SIDE
    touched = _cells_touched(boxes, image, levels) * depth * item
    # Cells that some sample reads, read once; the result written. Backward: its gradient read, the gradient of
    # every cell written, most of them zeros. Four multiply-adds a sample.
    forward = touched + out * item + size_in_bytes(boxes, image)
    arithmetic = out * SAMPLES**2 * 8
    kernels, peer_name = torchvision()
    half = dtype != "float32"
    return Problem(
        inputs=[boxes, image, *levels],
        ours=ours,
        eager=eager,
        peer=peer if kernels else None,
        peer_name=peer_name if kernels else None,
        bytes_fwd=forward,
        bytes_fwdbwd=forward + out * item + size_in_bytes(*levels),
        flops_fwd=arithmetic,
        flops_fwdbwd=2 * arithmetic,
        rtol=2e-2 if half else 1e-3,
        atol=5e-2 if half else 1e-3,
    )


def _cells_touched(boxes: Tensor, image: Tensor, levels: list[Tensor]) -> int:
    """Cells that a sample reads with a weight that is not 0: those that get a gradient."""
    flat = [torch.zeros_like(x[:, :1], dtype=torch.float32).requires_grad_() for x in levels]
    with torch.enable_grad():
        grads = torch.autograd.grad(ours(boxes, image, *flat).sum(), flat)
    return sum(int((g != 0).sum()) for g in grads)
