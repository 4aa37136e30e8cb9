# SPDX-License-Identifier: Apache-2.0
"""RoIAlign over all levels of a pyramid in one call; the size of a box decides its level.

Source: He et al., Mask R-CNN, arXiv:1703.06870; Lin et al., FPN, arXiv:1612.03144, eq. 1.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from detectron_libra.ops.backend import is_built, use_compiled
from detectron_libra.ops.roi_align.reference import check_arguments, roi_align_reference, roi_levels

__all__ = ["roi_align", "roi_align_reference", "roi_levels"]


def roi_align(
    levels: Sequence[Tensor],
    boxes: Tensor,
    image_index: Tensor,
    *,
    strides: Sequence[int],
    output_size: int,
    sampling_ratio: int,
    aligned: bool,
    canonical_scale: float = 224,
    canonical_level: int = 4,
    min_level: int,
    extent: float,
) -> Tensor:
    """Features of each box on a fixed grid, by bilinear samples averaged per bin.

    Args:
        levels: L tensors (N, C, H_l, W_l), finest first; float32, float64, float16 or bfloat16, contiguous or
            channels_last. At most 16 of them on CUDA. One level is plain RoIAlign.
        boxes: (R, 4) float32, x1 y1 x2 y2 in pixels of the input image. No gradient flows to them.
        image_index: (R,) int64, the image of each box; a box of no image (padding, -1) gives zeros.
        strides: pixels per cell of each level.
        output_size: S, bins per side.
        sampling_ratio: samples per bin and axis; 0 takes one per cell, at most 128.
        aligned: shift boxes by half a cell (`Geometry.aligned_roi`); without it a box has at least one cell.
        canonical_scale: size in pixels of a box that belongs on ``canonical_level``.
        min_level: the pyramid level of ``levels[0]`` (2 for P2).
        extent: pixels added to x2 - x1 to get a width when choosing the level (`Geometry.extent`).

    Returns:
        (R, C, S, S), dtype and memory format of the levels, summed in float32. Samples more than one cell
        outside a level count as 0; boxes that are not finite give zeros.

    Raises:
        RuntimeError: shapes, dtypes or devices do not fit; the message names the argument.
    """
    levels, strides, boxes = list(levels), [int(s) for s in strides], boxes.detach().to(torch.float32)
    if levels and use_compiled(levels[0]):
        return torch.ops.detectron_libra.roi_align(
            levels, boxes, image_index, strides, output_size, sampling_ratio, aligned, canonical_scale,
            canonical_level, min_level, extent,
        )  # fmt: skip
    return roi_align_reference(
        levels,
        boxes,
        image_index,
        strides=strides,
        output_size=output_size,
        sampling_ratio=sampling_ratio,
        aligned=aligned,
        canonical_scale=canonical_scale,
        canonical_level=canonical_level,
        min_level=min_level,
        extent=extent,
    )


def _is_channels_last(levels: Sequence[Tensor]) -> bool:
    return any(x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous() for x in levels)


def _format(channels_last: bool) -> torch.memory_format:
    return torch.channels_last if channels_last else torch.contiguous_format


def _fake(levels, boxes, image_index, strides, output_size, *options):
    check_arguments(levels, boxes, image_index, strides)
    first = levels[0]
    shape = (boxes.shape[0], first.shape[1], output_size, output_size)
    memory_format = _format(_is_channels_last(levels))
    return torch.empty(shape, dtype=first.dtype, device=first.device, memory_format=memory_format)


def _backward_fake(grad, boxes, image_index, images, sizes, channels_last, *options):
    shapes = [(images, grad.shape[1], h, w) for h, w in zip(sizes[::2], sizes[1::2], strict=True)]
    memory_format = _format(channels_last)
    return [torch.empty(s, dtype=grad.dtype, device=grad.device, memory_format=memory_format) for s in shapes]


def _setup_context(ctx, inputs, output):
    levels, boxes, image_index, *ctx.options = inputs
    ctx.images, ctx.channels_last = levels[0].shape[0], _is_channels_last(levels)
    ctx.sizes = [s for level in levels for s in level.shape[2:]]
    ctx.save_for_backward(boxes, image_index)


def _backward(ctx, grad):
    op = torch.ops.detectron_libra.roi_align_backward
    grads = op(grad, *ctx.saved_tensors, ctx.images, ctx.sizes, ctx.channels_last, *ctx.options)
    return grads, None, None, *(None for _ in ctx.options)


def _refuse_second_derivative(ctx, *grads):
    raise NotImplementedError("roi_align has no second derivative")


def _register() -> None:
    """Gives the compiled operator what C++ cannot on the stable ABI: shapes without data, and autograd."""
    torch.library.register_fake("detectron_libra::roi_align", _fake)
    torch.library.register_fake("detectron_libra::roi_align_backward", _backward_fake)
    torch.library.register_autograd("detectron_libra::roi_align", _backward, setup_context=_setup_context)
    torch.library.register_autograd("detectron_libra::roi_align_backward", _refuse_second_derivative)


if is_built():
    _register()
