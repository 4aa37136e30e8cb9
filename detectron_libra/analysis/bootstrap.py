# SPDX-License-Identifier: Apache-2.0
"""Is a difference more than chance? A paired bootstrap over the images of the test set, and the spread of the seeds.

``ci95`` asks what other images of the same kind would say of these very networks: images are drawn with replacement,
the same ones for every run. It knows nothing of the chance in training, so ``ci95_seeds`` adds that: its half-width is
the root of the sum of the squares of that of ``ci95`` and of Student's interval of the differences seed by seed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000
#: Of the random choice of images; not the seed of a training.
SEED = 20190402
#: Per cent of the resampled differences that lie below the two ends of the interval.
ENDS = (2.5, 97.5)
#: Quantile 0.975 of Student's distribution for 1 to 10 degrees of freedom, and of the normal distribution.
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
NORMAL = 1.960
#: What is said of a difference whose interval contains 0.
CONTAINS_ZERO = "interval contains 0"
CONTAINS_ZERO_WITH_SEEDS = "interval contains 0 once seeds count"


def draw_counts(images: int, *, resamples: int = RESAMPLES, seed: int = SEED) -> np.ndarray:
    """How often each image is drawn when as many images as there are are drawn with replacement.

    Args:
        images: N, 1 or more.
        resamples: R.

    Returns:
        (R, N) int64; the same for the same arguments.
    """
    return np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), size=resamples)


def compare(differences: Sequence[float | None], resampled: Sequence[np.ndarray] | None) -> Difference | None:
    """The mean difference of two variants, with its intervals.

    Args:
        differences: variant - baseline on the test set, one per seed that both have.
        resampled: for each of them, (R,) the same on each resample of the images, NaN where it cannot be computed;
            None where the metric is none of the images', such as minutes.

    Returns:
        None where a difference cannot be computed.
    """
    if not differences or any(value is None for value in differences):
        return None
    known = np.array(differences, np.float64)
    delta = float(known.mean())
    interval = None if resampled is None else percentiles(np.mean(resampled, axis=0))
    return Difference(delta, interval, widened(delta, interval, known))


def percentiles(values: np.ndarray) -> Interval | None:
    """95 % interval of resampled values (R,), those that cannot be computed left out; None where none can."""
    known = values[~np.isnan(values)]
    if not len(known):
        return None
    low, high = np.percentile(known, ENDS)
    return float(low), float(high)


def widened(delta: float, interval: Interval | None, by_seed: np.ndarray) -> Interval | None:
    """``ci95_seeds``; None with one seed, which tells nothing of the others."""
    count = len(by_seed)
    if interval is None or count < 2:
        return None
    training = student(count - 1) * float(by_seed.std(ddof=1)) / math.sqrt(count)
    low, high = interval
    return delta - math.hypot(delta - low, training), delta + math.hypot(high - delta, training)


def student(freedom: int) -> float:
    """Quantile 0.975 of Student's distribution, within 0.01."""
    if freedom <= len(STUDENT):
        return STUDENT[freedom - 1]
    return NORMAL + 2.4 / freedom


#: Lower and upper end.
Interval = tuple[float, float]


@dataclass(frozen=True)
class Difference:
    """Variant - baseline of one metric.

    Attributes:
        delta: mean over the seeds.
        ci95: over images; None where there is none.
        ci95_seeds: over images and seeds; None with one seed.
    """

    delta: float
    ci95: Interval | None
    ci95_seeds: Interval | None

    @property
    def mark(self) -> str:
        """What the intervals take from the difference; empty where both stay clear of 0."""
        if self.ci95 and _contains_zero(self.ci95):
            return CONTAINS_ZERO
        if self.ci95_seeds and _contains_zero(self.ci95_seeds):
            return CONTAINS_ZERO_WITH_SEEDS
        return ""


def _contains_zero(interval: Interval) -> bool:
    return interval[0] <= 0 <= interval[1]
