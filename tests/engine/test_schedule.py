# SPDX-License-Identifier: Apache-2.0
"""Detectron's learning rates, worked out by hand from its formulas."""

import math

import pytest

from detectron_libra.engine.schedule import LearningRate
from detectron_libra.errors import UsageError


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"policy": "step", "step_size": 30}, {0: 1.0, 29: 1.0, 30: 0.1, 60: 0.01}),
        ({"policy": "steps_with_decay", "steps": (0, 60, 80)}, {0: 1.0, 59: 1.0, 60: 0.1, 79: 0.1, 99: 0.01}),
        (
            {"policy": "steps_with_lrs", "steps": (0, 60), "lrs": (0.5, 0.2)},
            {0: 0.5, 59: 0.5, 60: 0.2, 99: 0.2},
        ),
        ({"policy": "cosine_decay"}, {0: 1.0, 50: 0.5, 25: 0.5 + math.sqrt(2) / 4, 100: 0.0}),
        ({"policy": "cosine"}, {50: 0.5}),
        ({"policy": "exp_decay", "gamma": 0.01}, {0: 1.0, 50: 0.1, 100: 0.01}),
    ],
)
def test_policies(options, expected):
    """The rules: base gamma^(it // size); base gamma^k and LRS[k] from STEPS[k] on; base (cos(pi it/n) + 1) / 2;
    base e^(it/n log gamma).
    """
    schedule = LearningRate(1.0, max_iter=100, **options)
    for iteration, lr in expected.items():
        assert schedule.lr(iteration) == pytest.approx(lr, abs=1e-12), iteration


def test_warm_up_multiplies_the_policy_and_ends_at_its_iteration():
    """The rules for it < WARM_UP_ITERS: factor; or factor * (1 - a) + a with a = it / WARM_UP_ITERS."""
    linear = LearningRate(2.0, "steps_with_decay", steps=(0, 4), warm_up_iters=10, warm_up_factor=0.2)
    assert [linear.lr(i) for i in (0, 5, 10)] == pytest.approx([2.0 * 0.2, 0.2 * 0.6, 0.2])
    constant = LearningRate(2.0, warm_up_iters=10, warm_up_factor=0.2, warm_up_method="constant")
    assert [constant.lr(i) for i in (0, 9, 10)] == pytest.approx([0.4, 0.4, 2.0])


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"policy": "poly"}, "SOLVER.LR_POLICY"),
        ({"warm_up_method": "exp"}, "SOLVER.WARM_UP_METHOD"),
        ({"policy": "steps_with_decay"}, "SOLVER.STEPS"),
        ({"policy": "steps_with_decay", "steps": (10, 20)}, "SOLVER.STEPS"),
        ({"policy": "steps_with_decay", "steps": (0, 20, 10)}, "SOLVER.STEPS"),
        ({"policy": "steps_with_lrs", "steps": (0, 20), "lrs": (0.1,)}, "SOLVER.LRS"),
    ],
)
def test_faults_name_the_key(options, word):
    with pytest.raises(UsageError, match=word):
        LearningRate(1.0, **options)
