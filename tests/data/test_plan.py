# SPDX-License-Identifier: Apache-2.0
"""The plan of batches: every image, every epoch, the same from seed and iteration alone."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from detectron_libra.data.plan import Sample, TrainPlan, test_batches
from detectron_libra.errors import InputError

test_batches.__test__ = False  # a function of the package, not a test


def plan(count=11, tall=4, **options):
    settings = {
        "images_per_batch": 4,
        "scales": (96, 128),
        "flip_x": True,
        "flip_y": False,
        "group_by_aspect": True,
    }
    wide = [k >= tall for k in range(count)]
    return TrainPlan(range(count), wide, **{**settings, "seed": 3, **options})


def epoch(p, number=0):
    first = number * p.batches_per_epoch
    return [p.batch(first + k) for k in range(p.batches_per_epoch)]


def test_an_epoch_has_every_image_and_its_mirror_image():
    """The rule: USE_FLIPPED appends a mirrored copy of every image; nothing is flipped at random."""
    p = plan()
    seen = {(s.index, s.flip_x) for batch in epoch(p) for s in batch}
    assert seen == {(k, f) for k in range(11) for f in (False, True)} and p.images_per_epoch == 22


def test_batches_are_full_and_of_one_aspect():
    """The rule: w >= h and w < h are groups, each shuffled and cut into batches, whose order is shuffled again."""
    for batch in epoch(plan()):
        assert len(batch) == 4
        assert len({s.index < 4 for s in batch}) == 1
    assert any(len({s.index < 4 for s in batch}) == 2 for batch in epoch(plan(group_by_aspect=False)))


def test_a_short_last_batch_is_filled_not_lost():
    p = plan(5, tall=0, flip_x=False)
    counts = Counter(s.index for batch in epoch(p) for s in batch)
    assert p.batches_per_epoch == 2 and sorted(counts.values()) == [1, 1, 2, 2, 2]


def test_a_batch_may_be_larger_than_the_set():
    assert [s.index for s in plan(1, tall=0, flip_x=False).batch(7)] == [0, 0, 0, 0]


def test_the_plan_is_a_function_of_seed_and_iteration():
    p, q = plan(), plan()
    forward = [p.batch(k) for k in range(20)]
    assert [q.batch(k) for k in reversed(range(20))] == forward[::-1]
    assert [plan(seed=4).batch(k) for k in range(20)] != forward
    assert epoch(p, 0) != epoch(p, 1)


def test_scales_and_vertical_flips_are_drawn_evenly():
    """The rule: the short side is drawn uniformly from TRAIN.SCALES for every image."""
    p = plan(400, tall=100, flip_y=True)
    samples = [s for batch in epoch(p) for s in batch]
    assert 0.4 < sum(s.side == 96 for s in samples) / len(samples) < 0.6
    assert 0.4 < sum(s.flip_y for s in samples) / len(samples) < 0.6
    assert not any(s.flip_y for batch in epoch(plan()) for s in batch)


FACTORS = np.array([1.0, 1.5, 2.25, 1.0, 3.0, 1.1, 1.0, 1.0, 1.0, 1.9, 1.0])


def repeating(seed=3, **options):
    settings = {"images_per_batch": 1, "flip_x": False, "factors": FACTORS}
    return plan(seed=seed, **{**settings, **options})


def test_a_factor_is_the_mean_number_of_times_that_an_epoch_has_an_image():
    """The rule: floor(r) times, and once more with the probability r - floor(r)."""
    epochs = [Counter(s.index for batch in epoch(repeating(seed)) for s in batch) for seed in range(400)]
    for image, factor in enumerate(FACTORS):
        counts = [e[image] for e in epochs]
        assert set(counts) == {int(np.floor(factor)), int(np.ceil(factor))}
        assert np.mean(counts) == pytest.approx(factor, abs=0.08)


def test_repetitions_are_drawn_anew_in_each_epoch_and_are_a_function_of_seed_and_iteration():
    forward, backward = repeating(), repeating()
    batches = [forward.batch(k) for k in range(2000)]
    assert [backward.batch(k) for k in reversed(range(2000))] == batches[::-1]
    counts = Counter(s.index for batch in batches for s in batch)
    for image, factor in enumerate(FACTORS):
        assert counts[image] / 2000 == pytest.approx(factor / FACTORS.sum(), abs=0.01)
    first = [Counter(s.index for b in batches[k : k + 15] for s in b) for k in range(0, 150, 15)]
    assert any(c != first[0] for c in first)


def test_repetitions_keep_batches_of_one_aspect_and_give_each_its_own_scale_and_flip():
    p = repeating(images_per_batch=4, flip_x=True, flip_y=True, factors=np.full(11, 40.0))
    samples = [s for batch in epoch(p) for s in batch]
    assert all(len(b) == 4 and len({s.index < 4 for s in b}) == 1 for b in epoch(p))
    assert len({(s.index, s.flip_x, s.flip_y, s.side) for s in samples}) == 11 * 8


def test_a_factor_of_one_changes_nothing():
    assert [plan(factors=np.ones(11)).batch(k) for k in range(30)] == [plan().batch(k) for k in range(30)]


def test_nothing_to_train_on_is_an_error():
    with pytest.raises(InputError, match="no image"):
        plan(0)


def test_test_batches_keep_the_order_and_the_rest():
    batches = test_batches(5, [Sample(0, 96)], 2)
    assert [[s.index for s in b] for b in batches] == [[0, 1], [2, 3], [4]]


def test_views_of_the_same_images_follow_one_another():
    views = [Sample(0, 96, flip_x=True), Sample(0, 120, stretch=2.0, max_size=200), Sample(0, 96)]
    batches = test_batches(3, views, 2)
    assert [[s.index for s in b] for b in batches] == [[0, 1]] * 3 + [[2]] * 3
    assert [replace(b[0], index=0) for b in batches] == views * 2
