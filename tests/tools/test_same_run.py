# SPDX-License-Identifier: Apache-2.0
"""The same seed gives the same run, bit for bit: interrupted or not, with any number of workers."""

import signal
from functools import partial

import pytest
import torch

from detectron_libra.engine import checkpoint
from tests.tools.runs import losses, run, signal_self

TRAIN = ["train_net.py", "--skip-test", "--cfg"]
PARTS = ("model", "optimizer", "iteration", "rng", "metrics", "lr_factor", "class_names")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "out/train/tiny_train/retinanet"


def bits(value):
    """Nested containers with the bytes of every tensor; a NaN equals itself."""
    if torch.is_tensor(value):
        return value.dtype, tuple(value.shape), value.contiguous().numpy().tobytes()
    if isinstance(value, dict):
        return {k: bits(v) for k, v in value.items()}
    return [bits(v) for v in value] if isinstance(value, (list, tuple)) else repr(value)


def ends_of(folder, iterations=(3, 7)):
    """All that decides how a run goes on, after each of some iterations."""
    states = [checkpoint.load(checkpoint.path_of(folder, i)) for i in iterations]
    return [{part: bits(state[part]) for part in PARTS} for state in states]


def assert_same(trained, folder):
    """Weights, momentum, schedule, random state and losses of every iteration."""
    for expected, found in zip(ends_of(trained.folder), ends_of(folder), strict=True):
        assert [part for part in PARTS if expected[part] != found[part]] == []
    assert losses(folder) == losses(trained.folder)


def test_a_checkpoint_holds_momentum_and_random_state(trained):
    """What the comparisons below compare is there, and moves."""
    early, late = ends_of(trained.folder)
    assert early["optimizer"]["state"] and early["rng"]["torch"]
    assert all(early[part] != late[part] for part in ("model", "optimizer", "iteration", "metrics"))


def test_two_processes_with_one_seed_do_the_same(trained, config, folder):
    done = run(*TRAIN, config)
    assert done.code == 0, done.err
    assert_same(trained, folder)


def test_another_seed_does_something_else(trained, config, folder):
    assert run(*TRAIN, config, "RNG_SEED", 4).code == 0
    assert losses(folder)[0] != losses(trained.folder)[0]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (2, 0),
        *(pytest.param(b, a, marks=pytest.mark.slow) for b, a in [(0, 4), (4, 2), (2, 2), (4, 4), (0, 0)]),
    ],
)
@pytest.mark.parametrize("last", [5, pytest.param(6, marks=pytest.mark.slow)])
def test_resumed_in_the_middle_of_an_epoch_with_other_workers(trained, config, folder, before, after, last):
    """An epoch has 9 steps, a checkpoint is written after iteration 3, and ``last`` is the last that is done."""
    words = [*TRAIN, config, "DATA.WORKERS"]
    killed = run(*words, before, after=(last, partial(signal_self, signal.SIGKILL)))
    assert killed.code == -signal.SIGKILL and checkpoint.latest(folder).next_iteration == 4
    done = run(*words, after, "--resume")
    assert done.code == 0, done.err
    assert_same(trained, folder)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_the_number_of_workers_changes_nothing(trained, config, folder, workers):
    done = run(*TRAIN, config, "DATA.WORKERS", workers)
    assert done.code == 0, done.err
    assert_same(trained, folder)


@pytest.mark.slow
def test_a_model_that_draws_random_numbers_is_resumed_too(config, tmp_path):
    """The samplers of negatives draw in every step, from the generator whose state is in the checkpoint."""
    sampling = ["LIBRA.IOU_SAMPLING.ON", "True", "LIBRA.IOU_SAMPLING.NEGATIVES_PER_IM", 20]
    words = [*TRAIN, config, *sampling, "DATA.WORKERS", 2, "OUTPUT_DIR"]
    assert run(*words, tmp_path / "a").code == 0
    assert (
        run(*words, tmp_path / "b", after=(5, partial(signal_self, signal.SIGKILL))).code == -signal.SIGKILL
    )
    done = run(*words, tmp_path / "b", "--resume")
    assert done.code == 0 and "iterations 4 to 8" in done.out, done.err
    a, b = (ends_of(tmp_path / name / "train/tiny_train/retinanet") for name in "ab")
    assert a == b and a[0]["rng"] != a[1]["rng"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_deterministic_runs_on_a_gpu_are_the_same(config, tmp_path):
    ends = []
    for name in ("a", "b"):
        words = ["DEVICE", "cuda", "DETERMINISTIC", "True", "OUTPUT_DIR", tmp_path / name]
        done = run(*TRAIN, config, *words)
        assert done.code == 0, done.err
        ends.append(ends_of(tmp_path / name / "train/tiny_train/retinanet"))
    assert ends[0] == ends[1]
