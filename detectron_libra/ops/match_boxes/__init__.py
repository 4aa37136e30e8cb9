# SPDX-License-Identifier: Apache-2.0
"""Which ground truth each box overlaps most, and which boxes are some ground truth's best, for a whole batch."""

import torch
from torch import Tensor

from detectron_libra.ops.backend import is_built, use_compiled
from detectron_libra.ops.match_boxes.reference import (
    Matches,
    match_boxes_reference,
    max_overlap_with_reference,
    pairwise_iou,
)

__all__ = [
    "Matches",
    "match_boxes",
    "match_boxes_reference",
    "max_overlap_with",
    "max_overlap_with_reference",
    "pairwise_iou",
]

if is_built():
    _match = torch.ops.detectron_libra.match_boxes.default
    _share = torch.ops.detectron_libra.max_overlap_with.default

    @torch.library.register_fake("detectron_libra::match_boxes")
    def _(boxes, gt, valid, candidates, extent, min_best_iou):
        iou = gt.new_empty((gt.shape[0], boxes.shape[-2]))
        return iou, torch.empty_like(iou, dtype=torch.int64), torch.empty_like(iou, dtype=torch.int64)

    @torch.library.register_fake("detectron_libra::max_overlap_with")
    def _(boxes, regions, mask, extent):
        return regions.new_empty((regions.shape[0], boxes.shape[-2]))


@torch.no_grad()
def match_boxes(
    boxes: Tensor,
    gt: Tensor,
    valid: Tensor,
    *,
    extent: float,
    min_best_iou: float = 0.0,
    candidates: Tensor | None = None,
) -> Matches:
    """The ground truth that each box overlaps most, and the boxes no other one beats for a ground truth.

    Args:
        boxes: (M, 4) the same for every image, or (N, M, 4); float32 x1 y1 x2 y2 in pixels.
        gt: (N, G, 4) float32, padded.
        valid: (N, G) bool, False in rows that nothing may match.
        extent: pixels added to x2 - x1 to get a width (1 or 0).
        min_best_iou: a ground truth whose best box overlaps it less has no best box; nor has one at 0.
        candidates: (N, M) bool, boxes that take part; the others get IoU 0 and are nobody's best.

    Returns:
        Matches of (N, M). The kernels store no G x M matrix. A box or ground truth with a NaN coordinate
        overlaps nothing. No gradient flows.

    Raises:
        RuntimeError: shapes, dtypes or devices that do not match, naming the argument.

    Source: Detectron's utils/cython_bbox.pyx and roi_data/rpn.py; ties as in mmdetection's MaxIoUAssigner.
    """
    _check(boxes, gt, valid, "gt", "valid", candidates)
    if use_compiled(gt):
        found = _match(boxes.float(), gt.float(), valid, candidates, extent, min_best_iou)
        return Matches(*found)
    return match_boxes_reference(
        boxes.float(),
        gt.float(),
        valid,
        extent=extent,
        min_best_iou=min_best_iou,
        candidates=candidates,
    )


@torch.no_grad()
def max_overlap_with(boxes: Tensor, regions: Tensor, mask: Tensor, *, extent: float) -> Tensor:
    """The largest share of each box that lies inside one region (a crowd, an ignored area).

    Args:
        boxes: (M, 4) the same for every image, or (N, M, 4); float32 x1 y1 x2 y2 in pixels.
        regions: (N, G, 4) float32, padded.
        mask: (N, G) bool, the regions that count.
        extent: pixels added to x2 - x1 to get a width.

    Returns:
        (N, M) float32: intersection over the area of the box; 0 where there is no region.
    """
    _check(boxes, regions, mask, "regions", "mask", None)
    if use_compiled(regions):
        return _share(boxes.float(), regions.float(), mask, extent)
    return max_overlap_with_reference(boxes.float(), regions.float(), mask, extent=extent)


def _check(boxes, gt, valid, gt_name, valid_name, candidates):
    if gt.dim() != 3 or gt.shape[2] != 4:
        raise RuntimeError(f"{gt_name} must be (N, G, 4), not {tuple(gt.shape)}")
    n, g = gt.shape[:2]
    if boxes.dim() not in (2, 3) or boxes.shape[-1] != 4 or (boxes.dim() == 3 and boxes.shape[0] != n):
        raise RuntimeError(f"boxes must be (M, 4) or ({n}, M, 4), not {tuple(boxes.shape)}")
    for name, tensor, shape in (
        (valid_name, valid, (n, g)),
        ("candidates", candidates, (n, boxes.shape[-2])),
    ):
        if tensor is None:
            continue
        if tuple(tensor.shape) != shape:
            raise RuntimeError(f"{name} must be {shape}, not {tuple(tensor.shape)}")
        if tensor.dtype != torch.bool:
            raise RuntimeError(f"{name} must be bool, not {tensor.dtype}")
        if tensor.device != gt.device:
            raise RuntimeError(f"{name} is on {tensor.device} and {gt_name} on {gt.device}")
    if boxes.device != gt.device:
        raise RuntimeError(f"boxes is on {boxes.device} and {gt_name} on {gt.device}")
