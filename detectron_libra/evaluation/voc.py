# SPDX-License-Identifier: Apache-2.0
r"""PASCAL VOC's average precision at IoU 0.5.

Detections of a class are ranked by score over all images (equal scores in order of the images). Each is held
against the true box of its image and class that it overlaps most. Where that IoU exceeds 0.5, the detection is
right if it is the first one that claims the box, wrong if the box was claimed before, and counts neither way if
the box is ``difficult``; otherwise it is wrong. After k detections, with P true boxes that are not difficult,

    recall(k) = right(k) / P,   precision(k) = right(k) / (right(k) + wrong(k)),
    p(r) = the greatest precision(k) of those k with recall(k) >= r, 0 where there is none,

    AP until 2009 = (p(0) + p(0.1) + ... + p(1)) / 11,      AP since 2010 = integral of p(r) from 0 to 1.

Recall is compared with 0.1, 0.2, ... in whole numbers, 10 right(k) >= i P, so that no rounding decides.

Source: PASCAL VOC development kit, the chapter on evaluation ("must exceed 50%"); Detectron's datasets/voc_eval.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..structures import Detections
from .arrays import Flat, Found, Id, Truth, class_keys
from .boxes import candidate_pairs, overlap
from .rates import mean_of

#: A right detection overlaps its true box by more than this.
LEAST_IOU = 0.5
#: Recalls 0, 1/10, ..., 10/10 at which precision was read until 2009.
POINTS = np.arange(11)


def evaluate_voc(dataset: Any, detections: Mapping[Id, Detections], *, extent: float) -> dict:
    """Average precision as PASCAL VOC measures it.

    Args:
        dataset: with ``records``, ``class_names``, ``category_ids`` and ``voc``; its crowds are what VOC calls
            difficult.
        detections: by image id; an image without an entry has no detections.
        extent: pixels added to ``x2 - x1`` to get a width.

    Returns:
        ``AP50``, the mean over the classes with a true box, and ``per_class``, AP by class key, as fractions, None
        where there is no true box to find; ``eleven_points``, which of the two measures it is.
    """
    curves = voc_curves(dataset, detections, extent=extent)
    per_class = {name: curve.ap(dataset.voc.eleven_points) for name, curve in curves.items()}
    return {
        "AP50": mean_of(per_class.values()),
        "per_class": per_class,
        "eleven_points": dataset.voc.eleven_points,
    }


def voc_curves(dataset: Any, detections: Mapping[Id, Detections], *, extent: float) -> dict[str, Curve]:
    """What precision and recall are made of, by class key; arguments as in evaluate_voc."""
    flat = Flat(dataset, detections)
    truth, found = flat.truth, flat.found
    names = class_keys(dataset)
    claimed = _claims(found, truth, num_classes=len(names) + 1, extent=extent)
    ranked = np.argsort(-found.scores, kind="stable")
    ranked = ranked[~_is_difficult(claimed, truth)[ranked]]
    right = _first_claims(claimed[ranked])
    curves = {}
    for number, name in enumerate(names, start=1):
        mine = right[found.classes[ranked] == number]
        positives = int(((truth.classes == number) & ~truth.crowd).sum())
        curves[name] = Curve(np.cumsum(mine), np.arange(1, len(mine) + 1), positives)
    return curves


def _claims(found: Found, truth: Truth, *, num_classes: int, extent: float) -> np.ndarray:
    """(K,) int64: the true box that a detection overlaps most, the first of equals; -1 where not enough."""
    best = np.full(len(found.scores), -1)
    for d, t in candidate_pairs(found, truth, num_classes=num_classes):
        value = overlap(found.boxes[d], truth.boxes[t], extent=extent, of_first=False)
        order = np.lexsort((t, -value, d))
        chooser, first = np.unique(d[order], return_index=True)
        chosen = order[first]
        enough = value[chosen] > LEAST_IOU
        best[chooser[enough]] = t[chosen[enough]]
    return best


def _is_difficult(claimed: np.ndarray, truth: Truth) -> np.ndarray:
    difficult = np.append(truth.crowd, False)  # -1, nothing claimed, is the one at the end
    return difficult[claimed]


def _first_claims(claimed: np.ndarray) -> np.ndarray:
    """(K,) bool: no earlier entry has the same value; -1 never counts."""
    right = np.zeros(len(claimed), bool)
    right[np.unique(claimed, return_index=True)[1]] = True
    return right & (claimed >= 0)


@dataclass(frozen=True)
class Curve:
    """Precision and recall of one class.

    Attributes:
        right: (K,) int64, right detections among the best 1, 2, ..., K that count.
        counted: (K,) int64, detections that count, right or wrong, up to there.
        positives: how many true boxes there are to find.
    """

    right: np.ndarray
    counted: np.ndarray
    positives: int

    @property
    def precision(self) -> np.ndarray:
        """(K,) float64."""
        return self.right / self.counted

    @property
    def recall(self) -> np.ndarray | None:
        """(K,) float64; None without a true box."""
        return self.right / self.positives if self.positives else None

    def ap(self, eleven_points: bool) -> float | None:
        """Average precision by one of the two measures; None without a true box."""
        if not self.positives:
            return None
        # precision that is still reached at this recall or a higher one
        reached = np.append(np.maximum.accumulate(self.precision[::-1])[::-1], 0.0)
        if eleven_points:
            first = np.searchsorted(10 * self.right, POINTS * self.positives)
            return float(reached[first].mean())
        gained = np.diff(self.right, prepend=0) / self.positives
        return float((gained * reached[:-1]).sum())
