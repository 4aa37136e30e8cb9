# SPDX-License-Identifier: Apache-2.0
"""The metrics of a run when every image counts a given number of times: what a bootstrap over images needs.

Nothing is approximated but the order of equal scores: COCO's average precision is computed anew for every row of
counts, as pycocotools would on a data set in which images occur that often; only the matching is done once, since it
never looks beyond an image. Letters: R rows of counts, N images, K detections, T IoU thresholds.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np

from detectron_libra.evaluation.coco import METRICS
from detectron_libra.evaluation.rates import Candidates
from detectron_libra.evaluation.tallies import Claims, Ranking, Tallies

#: Recalls that COCO reads precision at.
RECALLS = np.linspace(0.0, 1.0, 101)
#: (row, detection) pairs that are computed at once: about 200 MB of intermediates.
PAIRS_AT_ONCE = 4_000_000
#: Range of areas and index of the IoU threshold (None: the mean over all) of each of COCO's metrics.
_COCO = {
    "AP": ("all", None),
    "AP50": ("all", 0),
    "AP75": ("all", 5),
    "APs": ("small", None),
    "APm": ("medium", None),
    "APl": ("large", None),
}
PER_CLASS = "per_class/"
NAMES = (
    *METRICS,
    "concept_precision",
    "concept_recall",
    "concept_mAP",
    "box_precision",
    "box_recall",
)


def weighted_metrics(tallies: Tallies, counts: np.ndarray) -> dict[str, np.ndarray]:
    """Every metric of an ablation for every row of counts.

    Args:
        tallies: of a run.
        counts: (R, N) how often each image counts, 0 or more; images in ascending order of id.

    Returns:
        Name, of ``NAMES`` or ``per_class/<class>`` for its AP -> (R,) float64, fractions; NaN where a value cannot be
        computed, as None is in results.json.
    """
    counts = np.asarray(counts, np.float64)
    precision = {key: average_precision(ranking, counts) for key, ranking in tallies.ranked.items()}
    classes = range(len(tallies.class_names))
    found: dict[str, np.ndarray] = {}
    for name, (area, threshold) in _COCO.items():
        values = np.stack([precision[k, area] for k in classes])
        found[name] = mean_of_known(
            values.mean(2) if threshold is None else values[:, :, threshold], len(counts)
        )
    for k, label in enumerate(tallies.class_names):
        found[f"{PER_CLASS}{label}"] = precision[k, "all"].mean(1)
    for what, claims in (("concept", tallies.concept), ("box", tallies.boxes)):
        found |= {f"{what}_{rate}": v for rate, v in _rates(claims, counts, tallies.threshold).items()}
    found["concept_mAP"] = mean_of_known(
        np.stack([image_precision(tallies.concept, k + 1, counts) for k in classes]), len(counts)
    )
    return found


def average_precision(ranking: Ranking, counts: np.ndarray) -> np.ndarray:
    """COCO's average precision of one class and range of areas.

    Args:
        ranking: K detections, best first.
        counts: (R, N).

    Returns:
        (R, T) float64; NaN where no object is to be found.

    Source: pycocotools' cocoeval.py (accumulate).
    """
    result = np.full((len(counts), len(ranking.right)), np.nan)
    for rows in _pieces(len(counts), len(ranking.image)):
        result[rows] = _average_precision(ranking, counts[rows])
    return result


def _average_precision(ranking: Ranking, counts: np.ndarray) -> np.ndarray:
    positives = counts @ ranking.positives
    result = np.empty((len(counts), len(ranking.right)))
    before, claimed = None, np.zeros(0)
    for t, (counted, right) in enumerate(zip(ranking.counted, ranking.right, strict=True)):
        places = np.flatnonzero(counted)
        if before is None or not np.array_equal(places, before):
            before, claimed = places, counts[:, ranking.image[places]].cumsum(1)
        hits = np.flatnonzero(right[places])
        found = counts[:, ranking.image[places[hits]]].cumsum(1)
        precision = _ratio(found, claimed[:, hits])
        envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        # of the recalls that COCO looks at, those that each right detection is the first to reach
        reached = np.searchsorted(RECALLS, _ratio(found, positives[:, None]), side="right")
        result[:, t] = (envelope * np.diff(reached, axis=1, prepend=0)).sum(1) / len(RECALLS)
    result[positives == 0] = np.nan
    return result


def image_precision(claims: Claims, number: int, counts: np.ndarray) -> np.ndarray:
    """(R,) average precision of the ranking of images by class ``number``, as ``rates.average_precision`` has it."""
    mine = claims.candidates.of_class(number)
    order = np.argsort(-mine.scores, kind="stable")
    scores, right, image = mine.scores[order], mine.right[order], mine.image[order]
    last = np.append(scores[1:] != scores[:-1], True) if len(scores) else np.zeros(0, bool)
    claimed = counts[:, image].cumsum(1)[:, last]
    found = (counts[:, image] * right).cumsum(1)[:, last]
    positives = counts @ claims.positives[:, number]
    gained = np.diff(found, axis=1, prepend=0)
    return _ratio((gained * _ratio(found, claimed)).sum(1), positives, empty=np.nan)


def mean_of_known(values: np.ndarray, rows: int) -> np.ndarray:
    """(R,) mean over classes, and over whatever is beyond the second axis, of (C-1, R, ...), without NaN."""
    if not len(values):
        return np.full(rows, np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # no class at all has a value in some row
        return np.nanmean(values, axis=0)


def _rates(claims: Claims, counts: np.ndarray, threshold: float) -> dict[str, np.ndarray]:
    c: Candidates = claims.candidates
    made = c.scores >= np.float32(threshold)
    size = len(claims.positives)
    claimed = counts @ np.bincount(c.image[made], minlength=size)
    right = counts @ np.bincount(c.image[made & c.right], minlength=size)
    positives = counts @ claims.positives.sum(1)
    return {
        "precision": _ratio(right, claimed, empty=np.nan),
        "recall": _ratio(right, positives, empty=np.nan),
    }


def _ratio(part: np.ndarray, whole: np.ndarray, *, empty: float = 0.0) -> np.ndarray:
    shape = np.broadcast_shapes(part.shape, whole.shape)
    return np.divide(part, whole, out=np.full(shape, empty), where=np.broadcast_to(whole > 0, shape))


def _pieces(rows: int, columns: int) -> Iterator[slice]:
    step = max(1, PAIRS_AT_ONCE // max(1, columns))
    return (slice(k, k + step) for k in range(0, rows, step))
