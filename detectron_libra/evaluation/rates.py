# SPDX-License-Identifier: Apache-2.0
"""Precision, recall and F1 of scored candidates: the arithmetic that images (concept) and boxes share.

A candidate is something the detector claims, with a class and a score; it counts when its score is at or
above the threshold, and it is right or wrong. Positives are what there was to find. What cannot be computed
is None:

* precision where nothing was claimed, recall and F1 where there is nothing to find;
* the best threshold where there is nothing to find or no candidate at all.

F1 is 2 TP / (2 TP + FP + FN), so it is 0, not None, where something was to be found and nothing was claimed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


def rates(candidates: Candidates, names: Sequence[str], *, threshold: float) -> dict:
    """Rates at ``threshold``, and the threshold that would have been best on these very candidates.

    Args:
        candidates: of all classes.
        names: (C-1,) keys of the classes 1..C-1.
        threshold: a candidate counts at this score and above; compared in float32, as scores are.

    Returns:
        ``precision``, ``recall``, ``f1`` over all classes together (micro); ``macro``, the means of the
        classes' values over the classes with positives, leaving out a class where the value cannot be
        computed; ``threshold``; ``best_threshold`` and ``best_f1``, the highest threshold with the greatest
        micro F1; ``per_class``, the same values by name, with the count of ``positives``.
    """
    per_class = {}
    for number, name in enumerate(names, start=1):
        mine = candidates.of_class(number)
        best = best_threshold(mine)
        per_class[name] = {**_at(mine, threshold), **best, "positives": int(mine.positives.sum())}
    found = [values for values in per_class.values() if values["positives"]]
    return {
        **_at(candidates, threshold),
        "macro": {key: mean_of(values[key] for values in found) for key in ("precision", "recall", "f1")},
        "threshold": float(threshold),
        **best_threshold(candidates),
        "per_class": per_class,
    }


def best_threshold(candidates: Candidates) -> dict:
    """``best_threshold`` and ``best_f1``: the score, of those that occur, at which micro F1 is greatest.

    Of several the highest one, which claims least. None for both without positives or without candidates.
    """
    positives = int(candidates.positives.sum())
    if not positives or not len(candidates.scores):
        return {"best_threshold": None, "best_f1": None}
    scores, right, claimed = ranking(candidates)
    f1 = 2 * right / (claimed + positives)
    best = int(np.argmax(f1))
    return {"best_threshold": float(scores[best]), "best_f1": float(f1[best])}


def average_precision(candidates: Candidates) -> float | None:
    """Area under the stepwise precision-recall curve of one class, without interpolation.

    Candidates are ranked by score; equal scores are one step, so their order plays no part. A positive that
    no candidate stands for is never found and adds 0. None without positives.
    """
    positives = int(candidates.positives.sum())
    if not positives:
        return None
    _, right, claimed = ranking(candidates)
    gained = np.diff(right, prepend=0) / positives
    return float((gained * right / np.maximum(claimed, 1)).sum())


def ranking(candidates: Candidates) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distinct scores, descending; how many candidates are right, and how many there are, from there up."""
    order = np.argsort(-candidates.scores, kind="stable")
    scores = candidates.scores[order]
    last = np.append(scores[1:] != scores[:-1], True) if len(scores) else np.zeros(0, bool)
    right = np.cumsum(candidates.right[order])
    return scores[last], right[last], np.flatnonzero(last) + 1


def mean_of(values) -> float | None:
    """Mean of the values that are not None; None where there is none."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _at(candidates: Candidates, threshold: float) -> dict:
    claimed = candidates.scores >= np.float32(threshold)
    right, wrong = int((claimed & candidates.right).sum()), int((claimed & ~candidates.right).sum())
    positives = int(candidates.positives.sum())
    return {
        "precision": right / (right + wrong) if right + wrong else None,
        "recall": right / positives if positives else None,
        "f1": 2 * right / (right + wrong + positives) if positives else None,
    }


@dataclass(frozen=True)
class Candidates:
    """What was claimed, and how much there was to find.

    Attributes:
        image: (K,) int64, index into the records.
        classes: (K,) int64, 1..C-1.
        scores: (K,) float32.
        right: (K,) bool.
        positives: (C,) int64, how many there are of each class.
    """

    image: np.ndarray
    classes: np.ndarray
    scores: np.ndarray
    right: np.ndarray
    positives: np.ndarray

    def of_class(self, number: int) -> Candidates:
        """The candidates and the positives of one class."""
        mine = self.classes == number
        return Candidates(
            image=self.image[mine],
            classes=self.classes[mine],
            scores=self.scores[mine],
            right=self.right[mine],
            positives=self.positives[number : number + 1],
        )
