# SPDX-License-Identifier: Apache-2.0
"""The bootstrap against closed forms, and its intervals cover the truth as often as they say."""

import math

import numpy as np
import pytest

from detectron_libra.analysis.bootstrap import (
    CONTAINS_ZERO,
    CONTAINS_ZERO_WITH_SEEDS,
    Difference,
    compare,
    draw_counts,
    percentiles,
    student,
)


def test_draws_are_the_same_for_the_same_seed_and_as_many_as_there_are_images():
    counts = draw_counts(7, resamples=100)
    assert counts.shape == (100, 7) and (counts.sum(1) == 7).all()
    assert (counts == draw_counts(7, resamples=100)).all()
    assert (counts != draw_counts(7, resamples=100, seed=1)).any()


def test_the_spread_of_a_mean_is_its_standard_error():
    """A mean over images is the closed form: its bootstrap deviation is std / sqrt(N), its interval 1.96 of them."""
    values = np.random.default_rng(0).normal(2, 3, size=400)
    means = draw_counts(400, resamples=20_000) @ values / 400
    error = values.std() / 20
    assert means.std() == pytest.approx(error, rel=0.02)
    low, high = percentiles(means)
    assert (low, high) == pytest.approx(
        (values.mean() - 1.96 * error, values.mean() + 1.96 * error), abs=0.02
    )


def test_pairing_takes_out_what_both_runs_share():
    """Images that are hard for both runs do not widen the interval of the difference."""
    rng = np.random.default_rng(1)
    hard = rng.normal(0, 10, size=200)
    baseline, variant = hard + rng.normal(0, 0.1, 200), hard + 1 + rng.normal(0, 0.1, 200)
    counts = draw_counts(200)
    together = percentiles(counts @ (variant - baseline) / 200)
    assert together[1] - together[0] < 0.1 and together[0] < (variant - baseline).mean() < together[1]


def covered(images: int, seeds: int, noise: float, trials: int) -> tuple[float, float]:
    """Share of trials in which each interval holds the true difference: images and seeds vary at random."""
    rng = np.random.default_rng(2)
    hits = np.zeros(2)
    for trial in range(trials):
        per_image = (
            0.3 + rng.normal(0, noise, (seeds, 1)) + rng.normal(0, 1, images)
        )  # one test set for all seeds
        counts = draw_counts(images, resamples=400, seed=trial)
        found = compare(per_image.mean(1).tolist(), [counts @ row / images for row in per_image])
        for k, (low, high) in enumerate((found.ci95, found.ci95_seeds)):
            hits[k] += low <= 0.3 <= high
    return tuple(hits / trials)


def test_intervals_cover_the_truth_where_training_has_no_chance_in_it():
    over_images, with_seeds = covered(60, 3, 0.0, 400)
    assert 0.92 < over_images < 0.97
    assert with_seeds >= over_images


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_only_the_interval_with_seeds_covers_the_truth_where_training_varies(seeds):
    """Noise of training as large as that of the images: without it the interval promises too much."""
    over_images, with_seeds = covered(60, seeds, 0.3, 400)
    assert over_images < 0.85 and with_seeds > 0.93


def test_the_mean_over_seeds_is_compared_and_both_intervals_are_given():
    rows = [np.linspace(0, 2, 101), np.linspace(0, 4, 101)]
    found = compare([1.0, 2.0], rows)
    assert found.delta == 1.5
    assert found.ci95 == pytest.approx((0.075, 2.925))
    training = 12.706 * math.sqrt(0.5) / math.sqrt(2)
    assert found.ci95_seeds == pytest.approx(
        (1.5 - math.hypot(1.425, training), 1.5 + math.hypot(1.425, training))
    )


def test_what_cannot_be_computed_has_no_difference():
    assert compare([], []) is None and compare([0.1, None], [np.zeros(3)] * 2) is None
    assert compare([0.0], [np.full(3, np.nan)]) == Difference(0.0, None, None)
    assert compare([2.0, 4.0], None) == Difference(3.0, None, None)
    assert compare([0.5], [np.array([0.4, np.nan, 0.6])]).ci95 == pytest.approx((0.405, 0.595))


@pytest.mark.parametrize(
    ("ci95", "ci95_seeds", "mark"),
    [
        ((-0.1, 0.2), (-0.2, 0.3), CONTAINS_ZERO),
        ((0.0, 0.2), None, CONTAINS_ZERO),
        ((-0.2, -0.1), (-0.4, 0.1), CONTAINS_ZERO_WITH_SEEDS),
        ((0.1, 0.2), (0.05, 0.25), ""),
        ((-0.2, -0.1), None, ""),
        (None, None, ""),
    ],
)
def test_a_difference_whose_interval_contains_zero_is_marked(ci95, ci95_seeds, mark):
    assert Difference(0.1, ci95, ci95_seeds).mark == mark


def test_students_quantiles_fall_to_that_of_the_normal_distribution():
    values = [student(k) for k in range(1, 200)]
    assert values == sorted(values, reverse=True)
    assert values[1] == 4.303 and values[19] == pytest.approx(2.086, abs=0.01) and values[-1] < 1.98
