# SPDX-License-Identifier: Apache-2.0
"""RoIAlign over a pyramid in plain PyTorch: the definition that the kernels must match."""

from collections.abc import Sequence

import torch
from torch import Tensor

#: An adaptive grid is no denser per axis: a box far larger than any image must not cost minutes.
MAX_GRID = 128


def roi_align_reference(
    levels: Sequence[Tensor],
    boxes: Tensor,
    image_index: Tensor,
    *,
    strides: Sequence[int],
    output_size: int,
    sampling_ratio: int,
    aligned: bool,
    canonical_scale: float,
    canonical_level: int,
    min_level: int,
    extent: float,
) -> Tensor:
    """See `detectron_libra.ops.roi_align.roi_align`."""
    check_arguments(levels, boxes, image_index, strides)
    images, channels = levels[0].shape[:2]
    level = roi_levels(boxes, len(levels), canonical_scale, canonical_level, min_level, extent)
    sizes = torch.tensor([x.shape[2:] for x in levels], device=boxes.device)[level]  # (R, 2)
    scale = (1.0 / torch.tensor(strides, dtype=torch.float32, device=boxes.device))[level]
    finite = boxes.isfinite().all(dim=1) & (image_index >= 0) & (image_index < images)
    box = torch.where(finite[:, None], boxes, 0.0)
    grids = [
        _axis(box[:, i], box[:, i + 2], scale, output_size, sampling_ratio, aligned, sizes[:, 1 - i])
        for i in (1, 0)
    ]
    # All cells of all levels and images as rows of one table, so that the level of a box is only an offset.
    table = torch.cat([x.permute(0, 2, 3, 1).reshape(-1, channels) for x in levels])
    counts = torch.tensor([x.shape[2] * x.shape[3] for x in levels], device=boxes.device)
    start = (counts.cumsum(0) - counts)[level] * images + image_index.clamp(0, images - 1) * counts[level]
    out = _sum_samples(table, start, sizes[:, 1], *grids)
    out = torch.where(finite[:, None, None, None], out, torch.zeros_like(out)).to(table.dtype)
    channels_last = any(
        x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous() for x in levels
    )
    out = out.permute(0, 3, 1, 2)
    return out.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def roi_levels(
    boxes: Tensor, levels: int, canonical_scale: float, canonical_level: int, min_level: int, extent: float
) -> Tensor:
    """(R,) int64, index of the level of each (R, 4) box. Source: FPN, arXiv:1612.03144, eq. 1."""
    size = (boxes[:, 2:] - boxes[:, :2] + extent).clamp(min=0).nan_to_num(0.0, posinf=torch.inf)
    level = torch.floor(canonical_level + torch.log2(size.prod(dim=1).sqrt() / canonical_scale + 1e-6))
    return (level - min_level).nan_to_num(0.0).clamp(0, levels - 1).long()


def check_arguments(
    levels: Sequence[Tensor], boxes: Tensor, image_index: Tensor, strides: Sequence[int]
) -> None:
    """Refuses shapes and types that the operator cannot take."""
    torch._check(len(levels) > 0, lambda: "levels must hold at least one tensor")
    for level in levels:
        torch._check(level.dim() == 4, lambda: "levels must be (N, C, H, W)")
        torch._check(level.shape[:2] == levels[0].shape[:2], lambda: "levels must share N and C")
        torch._check(level.dtype == levels[0].dtype, lambda: "levels must share one dtype")
        torch._check(level.device == levels[0].device, lambda: "levels must be on one device")
    torch._check(boxes.dim() == 2 and boxes.shape[1] == 4, lambda: "boxes must be (R, 4)")
    torch._check(boxes.device == levels[0].device, lambda: "boxes and levels must be on the same device")
    torch._check(image_index.shape == boxes.shape[:1], lambda: "image_index must be (R,), one number per box")
    torch._check(image_index.dtype == torch.int64, lambda: "image_index must be int64")
    torch._check(len(strides) == len(levels), lambda: "strides must hold one number per level")


def _axis(low, high, scale, output_size, sampling_ratio, aligned, length):
    """Samples of one axis: cells (2, R, S, g) int64, weights (2, R, S, g) float32, samples per bin (R,)."""
    shift = 0.5 if aligned else 0.0
    start = low * scale - shift
    size = high * scale - shift - start
    if not aligned:
        size = size.clamp(min=1.0)
    step = size / output_size
    grid = torch.full_like(step, sampling_ratio) if sampling_ratio > 0 else step.ceil().clamp(0, MAX_GRID)
    most = sampling_ratio if sampling_ratio > 0 else int(grid.max()) if grid.numel() else 0
    bins = torch.arange(output_size, device=low.device, dtype=torch.float32)[None, :, None]
    sample = torch.arange(most, device=low.device, dtype=torch.float32)[None, None, :]
    start, step, grid3 = (t[:, None, None] for t in (start, step, grid))
    at = start + bins * step + (sample + 0.5) * step / grid3
    last = (length - 1)[:, None, None].to(at.dtype)
    inside = (at >= -1.0) & (at <= last + 1) & (sample < grid3)
    if sampling_ratio == 0:  # a box far larger than its level has few samples inside
        used = inside.flatten(0, 1).any(dim=0)
        at, inside = at[..., used], inside[..., used]
    at = torch.where(inside, at, 0.0).clamp(min=0)
    at = torch.minimum(at, last)
    first = at.floor()
    second = torch.minimum(first + 1, last)
    fraction = at - first
    weights = torch.stack([1 - fraction, fraction]) * inside
    return torch.stack([first, second]).long(), weights, grid


def _sum_samples(table, start, width, rows, columns):
    """Mean over each bin's samples: (R, S, S, C) from the table of cells (cells, C)."""
    (y, y_weight, y_grid), (x, x_weight, x_grid) = rows, columns
    boxes, side, channels = start.shape[0], y.shape[2], table.shape[1]
    exact = torch.float64 if table.dtype == torch.float64 else torch.float32
    out = torch.zeros(boxes, side, side, channels, dtype=exact, device=table.device)
    width, start = width[:, None, None], start[:, None, None]
    for end_y in range(2):
        for i in range(y.shape[3]):
            row, row_weight = y[end_y, :, :, i, None], y_weight[end_y, :, :, i, None]
            for end_x in range(2):
                for j in range(x.shape[3]):
                    index = start + row * width + x[end_x, :, None, :, j]
                    weight = (row_weight * x_weight[end_x, :, None, :, j])[..., None]
                    value = table[index.reshape(-1)].view(boxes, side, side, channels).to(exact)
                    # A sample outside adds nothing, even where the cell it would read is not finite.
                    out = out + torch.where(weight != 0, weight * value, torch.zeros_like(value))
    return out / (y_grid * x_grid).clamp(min=1)[:, None, None, None]
