# SPDX-License-Identifier: Apache-2.0
"""ATSS: each ground truth has a threshold of IoU of its own, from the anchors that lie nearest to it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from detectron_libra.modeling.assignment import Assignment, inside_crowd, invert
from detectron_libra.modeling.overlap import paired_iou
from detectron_libra.modeling.slots import DenseOutputs
from detectron_libra.ops.balanced_l1.levels_reference import centre_and_size
from detectron_libra.ops.match_boxes import match_boxes
from detectron_libra.structures import Targets

#: A centre is inside a box from this many pixels on; that of the published code.
SMALLEST_DISTANCE_PX = 0.01


def nearest_anchors(
    anchors: Sequence[Tensor], boxes: Tensor, per_cell: int, top_k: int, extent: float
) -> Tensor:
    """The anchors of the cells whose centres are nearest to each box, level by level.

    All anchors of a cell have one centre, so that cells are what is near: the published code, too, takes ``top_k``
    times the anchors of a cell.

    Args:
        anchors: per level (H*W*A, 4) pixels; boxes: (N, G, 4) pixels; per_cell: A; top_k: cells per level, or all.

    Returns:
        (N, G, K) int64, rows of all levels together, K = A * the sum of cells over levels.
    """
    centres = centre_and_size(boxes, extent)[0]
    rows, start = [], 0
    for level in anchors:
        cells = centre_and_size(level[::per_cell], extent)[0]
        distance = (centres[:, :, None] - cells).square().sum(-1)
        cell = distance.topk(min(top_k, len(cells)), dim=2, largest=False, sorted=False).indices
        row = cell[..., None] * per_cell + torch.arange(per_cell, device=boxes.device)
        rows.append(row.flatten(2) + start)
        start += len(level)
    return torch.cat(rows, 2)


def centre_inside(anchors: Tensor, boxes: Tensor, extent: float) -> Tensor:
    """(...) bool: the centre of an anchor (..., 4) lies in the box (..., 4)."""
    centre = centre_and_size(anchors, extent)[0]
    distances = torch.cat((centre - boxes[..., :2], boxes[..., 2:] + extent - centre), -1)
    return distances.amin(-1) > SMALLEST_DISTANCE_PX


def best_claims(claimed: Tensor, iou: Tensor, rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Which ground truth gets an anchor that several claim: that of the largest IoU, the first one of equals.

    Args:
        claimed: (N, G, K) bool; iou: (N, G, K) of the pairs; rows: (N, G, K) anchors; count: M.

    Returns:
        (N, M) bool, claimed by any; (N, M) int64, by which.
    """
    images, objects, _ = rows.shape
    # What is not claimed lands in a column of its own, which is then cut off.
    place = torch.where(claimed, rows, count).flatten(1)
    best = iou.new_full((images, count + 1), -1.0)
    best.scatter_reduce_(1, place, iou.flatten(1), "amax")
    wins = claimed & (iou == best.gather(1, rows.flatten(1)).view_as(iou))
    owner = torch.arange(objects, device=rows.device)[:, None].expand_as(rows)
    index = rows.new_full((images, count + 1), objects)
    index.scatter_reduce_(1, torch.where(wins, rows, count).flatten(1), owner.flatten(1), "amin")
    return best[:, :-1] >= 0, index[:, :-1].clamp(max=max(objects - 1, 0))


@dataclass(frozen=True)
class ATSS:
    """Adaptive training sample selection.

    For every ground truth: candidates are the anchors of the ``top_k`` nearest cells of each level; the threshold is
    mean + standard deviation of their IoU; positives are the candidates from that IoU on whose centre lies inside the
    box. All other anchors are background.

    Attributes:
        top_k: cells per level.
        extent: pixels added to x2 - x1 to get a width.
        crowd_threshold: share of an anchor inside a crowd above which it is ignored unless positive; None trains it as
            background.

    Source: Zhang et al., ATSS, CVPR 2020, arXiv:1912.02424, algorithm 1.
    """

    top_k: int
    extent: float
    crowd_threshold: float | None = None

    @property
    def highest_negative(self) -> float:
        """IoU that negatives stay below: they may have any."""
        return 1.0

    @torch.no_grad()
    def __call__(
        self, outputs: DenseOutputs, targets: Targets, candidates: Tensor | None = None
    ) -> Assignment:
        """State (N, M), ground truth (N, M) and largest IoU (N, M) of every anchor; the host reads nothing.

        Args:
            outputs: of the head; its anchors are used.
            targets: ground truth in pixels of the resized images, G rows.
            candidates: (N, M) bool, anchors that take part; the others are ignored.
        """
        anchors, boxes, extent = outputs.all_anchors, targets.boxes, self.extent
        best = match_boxes(anchors, boxes, targets.valid, extent=extent, candidates=candidates)
        rows = nearest_anchors(outputs.anchors, boxes, outputs.anchors_per_cell, self.top_k, extent)
        near, truth = anchors[rows], boxes[:, :, None]
        iou = paired_iou(near, truth, extent=extent)
        deviation = iou.std(2, correction=min(1, iou.shape[2] - 1))
        claimed = (iou >= (iou.mean(2) + deviation)[..., None]) & centre_inside(near, truth, extent)
        claimed &= targets.valid[..., None]
        if candidates is not None:
            claimed &= candidates.gather(1, rows.flatten(1)).view_as(claimed)
        positive, index = best_claims(claimed, iou, rows, len(anchors))
        state = torch.where(positive, 1, 0)
        for unfit in (inside_crowd(anchors, targets, self.crowd_threshold, extent), invert(candidates)):
            state = state if unfit is None else torch.where(unfit & ~positive, -1, state)
        return Assignment(state, torch.where(positive, index, best.index), best.iou)
