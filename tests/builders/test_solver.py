# SPDX-License-Identifier: Apache-2.0
"""Rates and schedules: scaled to a reference batch, and told where they were made for several processes."""

import shlex

import pytest

from detectron_libra.builders.solver import (
    build_schedule,
    larger_steps,
    longer_schedule,
    warn_of_missing_processes,
)
from detectron_libra.config import load_config, with_options
from tests.builders.small import config

EIGHT = {
    "NUM_GPUS": 8,
    "SOLVER__BASE_LR": 0.02,
    "SOLVER__LR_POLICY": "steps_with_decay",
    "SOLVER__STEPS": "[0, 60000, 80000]",
    "SOLVER__MAX_ITER": 90000,
    "SOLVER__WARM_UP_ITERS": 0,
    "TRAIN__RPN_POST_NMS_TOP_N": 2000,
}


def test_a_reference_batch_scales_every_policys_rate():
    """Rate x images per step / SOLVER.REFERENCE_BATCH; also the rates of steps_with_lrs."""
    two = {"TRAIN__IMS_PER_BATCH": 2, "SOLVER__REFERENCE_BATCH": 16, "SOLVER__WARM_UP_ITERS": 0}
    assert build_schedule(config("retinanet", SOLVER__BASE_LR=0.01, **two)).lr(0) == pytest.approx(0.01 / 8)
    steps = {"SOLVER__LR_POLICY": "steps_with_lrs", "SOLVER__STEPS": "[0, 10]", "SOLVER__LRS": "[0.8, 0.08]"}
    schedule = build_schedule(config("retinanet", **two, **steps))
    assert [schedule.lr(0), schedule.lr(10)] == pytest.approx([0.1, 0.01])


def test_small_steps_are_detectrons_own_rule_for_fewer_gpus():
    """GETTING_STARTED.md's rule: a GPU in place of 8 has an eighth of the rate and 8 times the iterations."""
    cfg = config("faster_rcnn", **EIGHT)
    assert longer_schedule(cfg) == {
        "SOLVER.BASE_LR": 0.0025,
        "SOLVER.MAX_ITER": 720000,
        "SOLVER.STEPS": [0, 480000, 640000],
    }


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"SOLVER__REFERENCE_BATCH": 16}, {"SOLVER.MAX_ITER": 720000, "SOLVER.STEPS": [0, 480000, 640000]}),
        (
            {"SOLVER__LR_POLICY": "step", "SOLVER__STEP_SIZE": 30000},
            {"SOLVER.MAX_ITER": 720000, "SOLVER.STEP_SIZE": 240000, "SOLVER.BASE_LR": 0.0025},
        ),
        (
            {"SOLVER__LR_POLICY": "steps_with_lrs", "SOLVER__LRS": "[0.8, 0.4, 0.2]"},
            {
                "SOLVER.MAX_ITER": 720000,
                "SOLVER.STEPS": [0, 480000, 640000],
                "SOLVER.LRS": [0.1, 0.05, 0.025],
            },
        ),
        ({"SOLVER__LR_POLICY": "cosine_decay"}, {"SOLVER.MAX_ITER": 720000, "SOLVER.BASE_LR": 0.0025}),
    ],
)
def test_every_policy_has_its_own_longer_schedule(changes, expected):
    assert longer_schedule(config("faster_rcnn", **(EIGHT | changes))) == expected


def test_large_steps_keep_the_proposals_and_the_checkpoints_of_all_processes():
    """The last cut of proposals is over the images of a process: 16 images need those of 8 processes."""
    keys = larger_steps(config("faster_rcnn", **EIGHT))
    assert keys == {
        "TRAIN.IMS_PER_BATCH": 16,
        "TRAIN.SNAPSHOT_ITERS": 10000,
        "TRAIN.RPN_POST_NMS_TOP_N": 16000,
    }
    for other in (
        config("retinanet", **EIGHT),
        config("faster_rcnn", **EIGHT, MODEL__BOX_GEOMETRY="continuous"),
    ):
        assert "TRAIN.RPN_POST_NMS_TOP_N" not in larger_steps(other)


def test_the_warning_can_be_pasted_behind_the_command_and_is_then_silent(caplog):
    cfg = config("faster_rcnn", **EIGHT)
    warn_of_missing_processes(cfg)
    (said,) = [r.getMessage() for r in caplog.records]
    assert "NUM_GPUS is 8" in said and "steps have 2 images" in said and "made for 16" in said
    either, other = said.split("either ")[1].split(" (")[0], said.split(") or ")[1].split(" (")[0]
    caplog.clear()
    large, small = (with_options(cfg, ["NUM_GPUS", "1", *shlex.split(text)]) for text in (either, other))
    assert large.TRAIN.IMS_PER_BATCH == 16 and large.SOLVER == cfg.SOLVER
    assert small.SOLVER.BASE_LR * 8 == cfg.SOLVER.BASE_LR and small.TRAIN == cfg.TRAIN
    for changed in (large, small, load_config()):
        warn_of_missing_processes(changed)
    assert not caplog.records
