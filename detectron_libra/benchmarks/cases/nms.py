# SPDX-License-Identifier: Apache-2.0
"""Non-maximum suppression: a region proposal network's boxes by level and image, a detector's by class."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from detectron_libra.benchmarks.case import Case, Problem, Setup, generator, size_in_bytes
from detectron_libra.benchmarks.peer import torchvision
from detectron_libra.benchmarks.sizes import CLASSES, LARGE, SMALL, Images, box_counts, images, random_boxes
from detectron_libra.ops.nms import nms

#: Boxes that a region proposal network keeps of each level, and its levels.
BEFORE_NMS, LEVELS, ANCHORS = 2000, range(2, 7), 3
FLOPS_PER_PAIR = 13


def cases(setup: Setup) -> list[Case]:
    """Proposals of every image size at 0.7, detections of 80 classes at 0.5."""
    proposals = [
        Case("nms", f"{batch.name} proposals", "-", "float32", partial(_proposals, setup, batch))
        for batch in images(setup)
        if setup.full or setup.device == "cuda" or batch != SMALL
    ]
    few, many = box_counts(setup)
    counts = [few, many] if setup.full or setup.quick else [few]
    classes = [
        Case(
            "nms",
            f"{count} boxes {CLASSES} classes",
            "-",
            "float32",
            partial(_problem, setup, LARGE, count, CLASSES, 0.5),
        )
        for count in counts
    ]
    return [*proposals, *classes]


def eager(threshold: float, boxes: Tensor, scores: Tensor, groups: Tensor) -> Tensor:
    """Group by group, as the first GPU versions: all pairs of a group on the device, the greedy scan on the host."""
    keep = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    for group in groups.unique().tolist():
        rows = (groups == group).nonzero()[:, 0]
        rows = rows[scores[rows].argsort(descending=True, stable=True)]
        keep[rows] = _scan((_pairwise_iou(boxes[rows]) > threshold).cpu()).to(boxes.device)
    return keep


def _scan(overlaps: Tensor) -> Tensor:
    """(K,) bool of (K, K): each box that is still there drops those that it overlaps and that come later."""
    alive = torch.ones(len(overlaps), dtype=torch.bool)
    for i, row in enumerate(overlaps.unbind()):
        if alive[i]:
            alive &= ~row
            alive[i] = True
    return alive


def _pairwise_iou(boxes: Tensor) -> Tensor:
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    low = torch.max(boxes[:, None, :2], boxes[:, :2])
    high = torch.min(boxes[:, None, 2:], boxes[:, 2:])
    shared = (high - low).clamp(min=0).prod(2)
    return (shared / (area[:, None] + area - shared)).triu(1)


def ours(threshold: float, boxes: Tensor, scores: Tensor, groups: Tensor) -> Tensor:
    """The operator: all groups in one call."""
    return nms(boxes, scores, groups, threshold=threshold, extent=0.0, inclusive=False)


def peer(threshold: float, boxes: Tensor, scores: Tensor, groups: Tensor) -> Tensor:
    """torchvision's batched_nms, its indices as a mask."""
    keep = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    keep[torchvision()[0].batched_nms(boxes, scores, groups, threshold)] = True
    return keep


def _proposals(setup: Setup, batch: Images) -> Problem:
    limit = 40 if setup.quick else BEFORE_NMS
    per_level = [min(limit, ANCHORS * h * w) for h, w in map(batch.cells, LEVELS)]
    groups = torch.arange(len(LEVELS) * batch.batch, device=setup.device)
    groups = groups.repeat_interleave(torch.tensor(per_level * batch.batch, device=setup.device))
    return _with_groups(setup, batch, groups, 0.7)


def _problem(setup: Setup, batch: Images, count: int, classes: int, threshold: float) -> Problem:
    g = generator(setup, 4)
    groups = torch.randint(classes, (count,), generator=g, device=setup.device)
    return _with_groups(setup, batch, groups, threshold)


def _with_groups(setup: Setup, batch: Images, groups: Tensor, threshold: float) -> Problem:
    count = len(groups)
    # Several boxes around each object, as detectors give them.
    g = generator(setup, 5)
    objects = random_boxes(setup, (max(1, count // 5),), batch)
    centre = objects[torch.randint(len(objects), (count,), generator=g, device=setup.device)]
    side = (centre[:, 2:] - centre[:, :2]).repeat(1, 2)
    boxes = centre + 0.1 * side * torch.randn(count, 4, generator=g, device=setup.device)
    boxes = torch.cat([boxes[:, :2], torch.maximum(boxes[:, 2:], boxes[:, :2] + 1)], 1)
    scores = torch.rand(count, generator=g, device=setup.device)
    kernels, peer_name = torchvision()
    return Problem(
        inputs=[boxes, scores, groups],
        ours=partial(ours, threshold),
        eager=partial(eager, threshold),
        # The reference needs one pass over all boxes per kept box; the loop per group does the same sooner.
        expected=partial(eager, threshold),
        compiles=False,  # a loop whose length depends on the data
        peer=partial(peer, threshold) if kernels else None,
        peer_name=peer_name if kernels else None,
        # Boxes, scores and groups read; a mask written.
        bytes_fwd=size_in_bytes(boxes, scores, groups) + count,
        flops_fwd=_least_pairs(ours(threshold, boxes, scores, groups), groups) * FLOPS_PER_PAIR,
        # An IoU within a rounding of the threshold may fall on either side, on a device that fuses multiply-adds.
        mismatch=0.0 if setup.device == "cpu" else 2e-3,
    )


def _least_pairs(keep: Tensor, groups: Tensor) -> int:
    """Pairs that any greedy method must compare: the kept ones of a group with each other, the dropped ones with
    one that drops them."""
    kept = torch.bincount(groups[keep])
    return int((kept * (kept - 1) // 2).sum() + (~keep).sum())
