# SPDX-License-Identifier: Apache-2.0
"""Imbalance of samples: how hard the negatives are that each way of choosing finds, and who has the positives.

Source: Pang et al., Libra R-CNN, arXiv:1904.02701, section 3.1 and figure 3.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from detectron_libra.analysis.assigned import Assigned
from detectron_libra.analysis.inventory import AREAS
from detectron_libra.analysis.numbers import histogram, mean, number, quantiles, share
from detectron_libra.modeling.sampling import random_keys
from detectron_libra.modeling.slots import BoxCandidates, BoxSampler
from detectron_libra.ops.sample_by_iou import sample_uniform
from detectron_libra.structures import Targets

#: Width of the bins of IoU.
BIN = 0.05
#: The paper counts negatives above this IoU: more than 60 % of the hard ones, and 30 % of random ones.
HARD_IOU = 0.05
PAPER = {"hard": 0.6, "random": 0.3}
#: Edges of the histogram of positives per ground truth.
COUNT_EDGES = (0, 1, 2, 3, 5, 9, 17, 33, 65, 100_000)
#: Share of the ground truth whose part of the positives is told: evenly spread, a tenth of it has a tenth of them.
TOP = 0.1


@torch.no_grad()
def choose(assigned: Assigned, how: BoxSampler) -> dict[str, Tensor]:
    """The same number of negatives in three ways.

    Args:
        how: of the IoU-balanced choice.

    Returns:
        (N, M) bool each: ``hard``, those that the detector takes for objects most; ``random``; ``iou_balanced``.
    """
    a = assigned
    keys = random_keys(a.iou)
    score = torch.where(a.background, a.objectness, -1.0)
    rank = score.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    negatives = BoxCandidates(a.background, a.iou, a.index, a.low, a.high, num_gt=0)  # of no ground truth
    return {
        "hard": a.background & (rank < a.negatives[:, None]),
        "random": sample_uniform(a.background, a.negatives, keys),
        "iou_balanced": how(negatives, a.negatives, keys),
    }


class NegativeCounts:
    """The IoU of negatives, counted over batches.

    Args:
        how: of the IoU-balanced choice.
        high: IoU below which a box is a negative.
    """

    def __init__(self, how: BoxSampler, high: float):
        self.how = how
        self.edges = [*np.arange(0, high - BIN / 2, BIN).round(6), high]
        self.ious: dict[str, list[np.ndarray]] = defaultdict(list)

    def add(self, assigned: Assigned) -> None:
        """Count the choices of one batch, and all negatives there are."""
        chosen = choose(assigned, self.how) | {"all": assigned.background}
        for name, mask in chosen.items():
            self.ious[name].append(assigned.iou[mask].float().cpu().numpy())

    def tables(self) -> dict[str, Any]:
        """By way of choosing: ``count``, ``above`` (share above HARD_IOU), ``shares`` of the bins of ``edges``."""
        result: dict[str, Any] = {
            "edges": [number(e) for e in self.edges],
            "above_iou": HARD_IOU,
            "paper": PAPER,
        }
        for name, listed in self.ious.items():
            iou = np.concatenate(listed)
            counts = histogram(iou, self.edges)["counts"]
            result[name] = {
                "count": len(iou),
                "above": share((iou > HARD_IOU).sum(), len(iou)),
                "shares": [share(c, len(iou)) for c in counts],
            }
        return result


class PositiveCounts:
    """Positives per ground truth and per level, counted over batches.

    Args:
        levels: numbers of the levels.
        class_names: class c is ``class_names[c - 1]``.
        extent: pixels added to x2 - x1 to get a width.
    """

    def __init__(self, levels: Sequence[int], class_names: Sequence[str], extent: float):
        self.levels, self.class_names, self.extent = tuple(levels), tuple(class_names), extent
        self.by_level = np.zeros(len(self.levels), dtype=np.int64)
        self.rows: list[np.ndarray] = []

    def add(self, assigned: Assigned, targets: Targets, scales: Tensor) -> None:
        """Count one batch; ``scales`` (N,) is resized / original."""
        level = assigned.level.expand_as(assigned.positive)[assigned.positive]
        self.by_level += np.bincount(level.cpu().numpy(), minlength=len(self.levels))
        sides = targets.boxes[..., 2:] - targets.boxes[..., :2] + self.extent
        area = sides.prod(-1) / scales[:, None] ** 2
        counts = [count_per_truth(m, assigned.index, targets) for m in (assigned.positive, assigned.drawn)]
        columns = torch.stack([*(c.double() for c in counts), area.double(), targets.classes.double()], -1)
        self.rows.append(columns[targets.valid].cpu().numpy())

    def tables(self) -> dict[str, Any]:
        """``per_instance`` (all positives, and those that one step draws) and ``per_level``."""
        rows = np.concatenate([np.zeros((0, 4)), *self.rows])
        there, drawn, area, classes = rows.T
        sizes = {name: (area >= low) & (area < high) for name, (low, high) in AREAS.items()}
        kinds = {name: classes == c for c, name in enumerate(self.class_names, 1)}
        total = int(self.by_level.sum())
        return {
            "per_instance": {
                **instance_counts(there),
                "drawn": instance_counts(drawn),
                "mean_by_size": {name: mean(there[mask]) for name, mask in sizes.items()},
                "mean_by_class": {name: mean(there[mask]) for name, mask in kinds.items()},
            },
            "per_level": {
                f"P{level}": {"count": int(count), "share": share(count, total)}
                for level, count in zip(self.levels, self.by_level, strict=True)
            },
        }


def count_per_truth(positive: Tensor, index: Tensor, targets: Targets) -> Tensor:
    """(N, G) int64, positives (N, M) of each ground truth that ``index`` (N, M) names."""
    counts = torch.zeros_like(targets.classes)
    return counts.scatter_add(1, index.where(positive, 0), positive.long())


def instance_counts(counts: np.ndarray) -> dict[str, Any]:
    """How evenly positives are spread over M ground-truth boxes with ``counts`` (M,) of them."""
    most = np.sort(counts)[::-1][: max(1, round(TOP * len(counts)))]
    return {
        "instances": len(counts),
        "mean": mean(counts),
        "quantiles": quantiles(counts),
        "without": share((counts == 0).sum(), len(counts)),
        "histogram": histogram(counts, COUNT_EDGES),
        "top_tenth_share": share(most.sum(), counts.sum()),
    }
