# SPDX-License-Identifier: Apache-2.0
"""Precision, recall and F1 of boxes at a score threshold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..structures import Detections
from .arrays import Flat, Found, Id, Truth, class_keys
from .rates import Candidates, rates

#: Pairs of a detection and a true box that are compared at once: about 0.5 GB of float64 intermediates.
PAIRS_AT_ONCE = 4_000_000


def evaluate_boxes(
    dataset: Any,
    detections: Mapping[Id, Detections],
    *,
    threshold: float,
    iou: float,
    extent: float,
    flat: Flat | None = None,
) -> dict:
    """Precision, recall and F1 of the boxes that score at or above ``threshold``.

    Within an image and a class, detections choose in order of score (ties in the order given): each takes the
    true box with the highest IoU, at least ``iou``, of those still free. One that takes a box is right. One
    that takes none, but lies in a crowd region of its class (intersection / own area >= ``iou``), counts
    neither way.

    Args:
        dataset: with ``records``, ``class_names`` and ``category_ids``.
        detections: by image id; an image without an entry has no detections.
        threshold: score, 0..1.
        iou: least intersection over union, 0..1, above 0.
        extent: pixels added to ``x2 - x1`` to get a width.
        flat: both as arrays, where somebody has them already.

    Returns:
        See :func:`~detectron_libra.evaluation.rates.rates`; besides, ``iou``.
    """
    names = class_keys(dataset)
    matches = match_flat(flat or Flat(dataset, detections), len(names) + 1, iou=iou, extent=extent)
    return {**rates(matches.candidates(), names, threshold=threshold), "iou": float(iou)}


def match_dataset(dataset: Any, detections: Mapping[Id, Detections], *, iou: float, extent: float) -> Matches:
    """Which detections take a true box, by the rule of ``evaluate_boxes``, whose arguments these are."""
    return match_flat(Flat(dataset, detections), len(class_keys(dataset)) + 1, iou=iou, extent=extent)


def match_flat(flat: Flat, num_classes: int, *, iou: float, extent: float) -> Matches:
    """As ``match_dataset``, of arrays; ``num_classes`` with background."""
    truth, found = flat.truth, flat.found
    objects, crowds = truth.where(~truth.crowd), truth.where(truth.crowd)
    right = match_greedily(found, objects, num_classes=num_classes, iou=iou, extent=extent)
    counts = right | ~inside_any(found, crowds, num_classes=num_classes, share=iou, extent=extent)
    return Matches(objects, found, right, counts, num_classes)


def match_greedily(
    found: Found, objects: Truth, *, num_classes: int, iou: float, extent: float
) -> np.ndarray:
    """(K,) bool: the detection takes a true box.

    A lower score never changes what a higher one took, so one matching serves every score threshold. Groups
    (image and class) do not meet: the r-th detections of all groups choose at the same time.
    """
    near_d, near_t, near_iou = [], [], []
    for d, t in candidate_pairs(found, objects, num_classes=num_classes):
        value = overlap(found.boxes[d], objects.boxes[t], extent=extent, of_first=False)
        near = value >= iou
        near_d.append(d[near])
        near_t.append(t[near])
        near_iou.append(value[near])
    right = np.zeros(len(found.scores), bool)
    if not near_d:
        return right
    d, t, value = np.concatenate(near_d), np.concatenate(near_t), np.concatenate(near_iou)
    turn = rank_in_group(found, d, num_classes=num_classes)
    order = np.lexsort((t, -value, d, turn))
    d, t, turn = d[order], t[order], turn[order]
    free = np.ones(len(objects.classes), bool)
    for now in np.split(np.arange(len(turn)), np.flatnonzero(np.diff(turn)) + 1):
        open_now = now[free[t[now]]]
        chooser, first = np.unique(d[open_now], return_index=True)
        right[chooser] = True
        free[t[open_now[first]]] = False
    return right


def inside_any(found: Found, regions: Truth, *, num_classes: int, share: float, extent: float) -> np.ndarray:
    """(K,) bool: at least ``share`` of the detection's area lies in one region of its image and class."""
    inside = np.zeros(len(found.scores), bool)
    for d, t in candidate_pairs(found, regions, num_classes=num_classes):
        value = overlap(found.boxes[d], regions.boxes[t], extent=extent, of_first=True)
        inside[d[value >= share]] = True
    return inside


def candidate_pairs(
    found: Found, truth: Truth, *, num_classes: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Indices (detection, true box) of one image and class, in pieces of bounded size."""
    group = truth.image * num_classes + truth.classes
    order = np.argsort(group, kind="stable")
    group = group[order]
    mine = found.image * num_classes + found.classes
    begin = np.searchsorted(group, mine, "left")
    count = np.searchsorted(group, mine, "right") - begin
    piece = np.cumsum(count) // PAIRS_AT_ONCE
    for number in np.unique(piece):
        d = np.flatnonzero((piece == number) & (count > 0))
        repeated = np.repeat(d, count[d])
        within = np.arange(len(repeated)) - np.repeat(np.cumsum(count[d]) - count[d], count[d])
        if len(repeated):
            yield repeated, order[begin[repeated] + within]


def overlap(a: np.ndarray, b: np.ndarray, *, extent: float, of_first: bool) -> np.ndarray:
    """Intersection over union, or over the area of the first, of boxes (P, 4) row by row; 0 if empty."""
    corner = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2]) + extent
    common = np.clip(corner, 0, None).prod(axis=1)
    area_a = np.clip(a[:, 2:] - a[:, :2] + extent, 0, None).prod(axis=1)
    area_b = np.clip(b[:, 2:] - b[:, :2] + extent, 0, None).prod(axis=1)
    whole = area_a if of_first else area_a + area_b - common
    return np.divide(common, whole, out=np.zeros_like(common), where=whole > 0)


def rank_in_group(found: Found, d: np.ndarray, *, num_classes: int) -> np.ndarray:
    """For every entry of ``d`` (indices of detections): how many of its group in ``d`` score before it."""
    chosen = np.unique(d)
    group = found.image[chosen] * num_classes + found.classes[chosen]
    # Detections lie image by image, best first: a stable sort by group keeps the order of scores.
    order = np.argsort(group, kind="stable")
    start = np.flatnonzero(np.diff(group[order], prepend=-1))
    length = np.diff(np.append(start, len(order)))
    rank = np.empty(len(chosen), np.int64)
    rank[order] = np.arange(len(order)) - np.repeat(start, length)
    return rank[np.searchsorted(chosen, d)]


@dataclass(frozen=True)
class Matches:
    """The boxes of a data set, and which detections are right.

    Attributes:
        objects: true boxes that are no crowds.
        found: all detections.
        right: (K,) bool, the detection takes a true box.
        counts: (K,) bool, the detection is right or wrong; otherwise it counts neither way.
        num_classes: with background.
    """

    objects: Truth
    found: Found
    right: np.ndarray
    counts: np.ndarray
    num_classes: int

    def candidates(self) -> Candidates:
        """The detections that count, as precision and recall are made of them."""
        positives = np.bincount(self.objects.classes, minlength=self.num_classes)
        counts, found = self.counts, self.found
        return Candidates(
            image=found.image[counts],
            classes=found.classes[counts],
            scores=found.scores[counts],
            right=self.right[counts],
            positives=positives,
        )
