# SPDX-License-Identifier: Apache-2.0
"""IoU-balanced choice of negatives: 512 of an image's proposals (R-CNN), or of 200,000 anchors (dense)."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from detectron_libra.benchmarks.case import Case, Problem, Setup, generator, size_in_bytes
from detectron_libra.benchmarks.sizes import box_counts
from detectron_libra.ops.sample_by_iou import sample_by_iou

IMAGES, BINS, HIGH = 2, 3, 0.5
#: Boxes to choose from where 512 are chosen, as a region proposal network gives them.
PROPOSALS = 2000


def cases(setup: Setup) -> list[Case]:
    """Few boxes chosen from proposals, and from all anchors."""
    few, many = box_counts(setup)
    proposals = 64 if setup.quick else PROPOSALS
    return [
        Case(
            "sample_by_iou",
            f"{few} of {proposals} b2",
            "-",
            "float32",
            partial(_problem, setup, proposals, few),
        ),
        Case("sample_by_iou", f"{many} b2", "-", "float32", partial(_problem, setup, many, few)),
    ]


def eager(iou: Tensor, candidates: Tensor, num: Tensor, keys: Tensor) -> Tensor:
    """As mmdetection's IoU-balanced sampler: for each image and interval the indices, shuffled, the first few."""
    chosen = torch.zeros_like(candidates)
    for n in range(iou.shape[0]):
        wanted = int(num[n])
        for part in range(BINS):
            low, high = HIGH * part / BINS, HIGH * (part + 1) / BINS
            inside = (candidates[n] & (iou[n] >= low) & (iou[n] < high)).nonzero()[:, 0]
            chosen[n, _some(inside, wanted // BINS)] = True
        rest = (candidates[n] & ~chosen[n]).nonzero()[:, 0]
        chosen[n, _some(rest, wanted - int(chosen[n].sum()))] = True
    return chosen


def ours(iou: Tensor, candidates: Tensor, num: Tensor, keys: Tensor) -> Tensor:
    """The operator."""
    return sample_by_iou(iou, candidates, num, keys, bins=BINS, high=HIGH)


def _some(index: Tensor, count: int) -> Tensor:
    return index[torch.randperm(len(index), device=index.device)[:count]]


def _problem(setup: Setup, boxes: int, wanted: int) -> Problem:
    g = generator(setup)
    draw, keys = (torch.rand(IMAGES, boxes, generator=g, device=setup.device) for _ in range(2))
    iou = draw**3  # many small overlaps, few large ones
    candidates = iou < HIGH
    num = torch.full((IMAGES,), wanted, dtype=torch.int64, device=setup.device)
    return Problem(
        inputs=[iou, candidates, num, keys],
        ours=ours,
        eager=eager,
        # IoU, candidates and keys read once; a mask written.
        bytes_fwd=size_in_bytes(iou, candidates, num, keys) + candidates.numel(),
    )
