# SPDX-License-Identifier: Apache-2.0
"""Matching of anchors or proposals with ground truth."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from detectron_libra.benchmarks.case import Case, Problem, Setup, size_in_bytes
from detectron_libra.benchmarks.sizes import (
    GROUND_TRUTH,
    LARGE,
    TINY,
    Images,
    box_counts,
    grid_boxes,
    images,
    random_boxes,
)
from detectron_libra.ops.match_boxes import match_boxes

#: RetinaNet's anchors.
LEVELS, ANCHORS = range(3, 8), 9
#: Least operations of one pair: four minima and maxima, four differences and clamps, a product, two for the
#: union, a quotient, a comparison.
FLOPS_PER_PAIR = 13


def cases(setup: Setup) -> list[Case]:
    """The anchors of every image size, the same for all images; boxes of each image its own."""
    anchors = [
        Case("match_boxes", f"{batch.name} anchors", "-", "float32", partial(_anchors, setup, batch))
        for batch in images(setup)
    ]
    batch = TINY if setup.quick else LARGE
    boxes = [
        Case("match_boxes", f"{count} boxes b2", "-", "float32", partial(_boxes, setup, batch, count))
        for count in box_counts(setup)
    ]
    return [*anchors, *boxes]


def eager(boxes: Tensor, gt: Tensor, valid: Tensor) -> list[Tensor]:
    """As mmdetection's assigner and torchvision's matcher: the whole matrix of an image, its maxima both ways."""
    rows = []
    for n in range(gt.shape[0]):
        own = boxes if boxes.dim() == 2 else boxes[n]
        iou = _pairwise_iou(gt[n], own) * valid[n][:, None]
        best, index = iou.max(0)
        most = iou.amax(1, keepdim=True)
        number = torch.arange(gt.shape[1], device=gt.device)[:, None]
        best_for = torch.where((iou == most) & (most > 0), number, -1).amax(0)
        rows.append((best, index, best_for))
    return [torch.stack(column) for column in zip(*rows, strict=True)]


def ours(boxes: Tensor, gt: Tensor, valid: Tensor) -> list[Tensor]:
    """The operator."""
    found = match_boxes(boxes, gt, valid, extent=0.0)
    return [found.iou, found.index, found.best_for]


def _pairwise_iou(a: Tensor, b: Tensor) -> Tensor:
    area_a, area_b = ((t[:, 2] - t[:, 0]) * (t[:, 3] - t[:, 1]) for t in (a, b))
    low = torch.max(a[:, None, :2], b[:, :2])
    high = torch.min(a[:, None, 2:], b[:, 2:])
    side = (high - low).clamp(min=0)
    shared = side[..., 0] * side[..., 1]
    return shared / (area_a[:, None] + area_b - shared).clamp(min=1e-6)


def _anchors(setup: Setup, batch: Images) -> Problem:
    return _problem(setup, batch, grid_boxes(setup, batch, LEVELS, ANCHORS), batch.batch)


def _boxes(setup: Setup, batch: Images, count: int) -> Problem:
    return _problem(setup, batch, random_boxes(setup, (2, count), batch), 2)


def _problem(setup: Setup, batch: Images, boxes: Tensor, number: int) -> Problem:
    gt = random_boxes(setup, (number, GROUND_TRUTH), batch, seed=3)
    valid = torch.ones(number, GROUND_TRUTH, dtype=torch.bool, device=setup.device)
    pairs = number * boxes.shape[-2]
    return Problem(
        inputs=[boxes, gt, valid],
        ours=ours,
        eager=eager,
        # Boxes and ground truth read; an IoU (4 bytes) and two indices (8 each) written for every box.
        bytes_fwd=size_in_bytes(boxes, gt, valid) + pairs * 20,
        flops_fwd=pairs * GROUND_TRUTH * FLOPS_PER_PAIR,
        # Two ground truths of almost the same IoU may change places where rounding differs.
        mismatch=1e-4,
    )
