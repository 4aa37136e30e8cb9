# SPDX-License-Identifier: Apache-2.0
"""Precision over recall of boxes at one IoU, by class and for all classes together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .boxes import Matches
from .rates import Candidates, ranking

#: Name of the curve of all classes together.
ALL = "all classes"


@dataclass(frozen=True)
class Curve:
    """One curve; a point per distinct score, from the highest one down.

    Attributes:
        name: class key, or ``ALL``.
        positives: true boxes.
        recall, precision: (R,) float64.
        at: recall and precision at the threshold; None where no box reaches it.
    """

    name: str
    positives: int
    recall: np.ndarray
    precision: np.ndarray
    at: tuple[float, float] | None


def precision_recall(matches: Matches, names: Sequence[str], *, threshold: float) -> list[Curve]:
    """Curves of the boxes of a data set, precision not interpolated.

    Args:
        matches: of ``match_dataset``.
        names: (C-1,) keys of the classes 1..C-1.
        threshold: score, compared in float32, as scores are.

    Returns:
        The curve of all classes together, then those of the classes with a true box, in the order of ``names``.
    """
    candidates = matches.candidates()
    curves = [_curve(ALL, candidates, threshold)]
    curves += [
        _curve(name, candidates.of_class(number), threshold)
        for number, name in enumerate(names, start=1)
        if candidates.positives[number]
    ]
    return [curve for curve in curves if curve.positives]


def _curve(name: str, candidates: Candidates, threshold: float) -> Curve:
    scores, right, claimed = ranking(candidates)
    positives = int(candidates.positives.sum())
    recall, precision = right / max(positives, 1), right / claimed
    reached = int((scores >= np.float32(threshold)).sum())
    at = (float(recall[reached - 1]), float(precision[reached - 1])) if reached else None
    return Curve(name, positives, recall, precision, at)
