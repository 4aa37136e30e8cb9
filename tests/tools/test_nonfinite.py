# SPDX-License-Identifier: Apache-2.0
"""A loss that is not finite in a real run: stopped, left out or gone back from, and run again from its file."""

import re
import shutil

import pytest
import torch

from detectron_libra.engine import checkpoint, replay, step
from detectron_libra.report.history import read_history
from tests.tools.runs import losses, refused, run

TRAIN = ["train_net.py", "--skip-test", "--cfg"]
SPOILED: list[bool] = []


def spoil_the_next_step() -> None:
    """For ``after``: one loss that is no number, in the first part of a run and not when it comes by again."""
    if SPOILED:
        return
    SPOILED.append(True)
    losses_of = step.losses_of

    def once(*args):
        step.losses_of = losses_of
        raw, values, total = losses_of(*args)
        return raw | {"bbox": raw["bbox"] * float("nan")}, values, total * float("nan")

    step.losses_of = once


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "out/train/tiny_train/retinanet"


def test_stop_names_everything_and_keeps_the_last_good_checkpoint(config, folder):
    done = run(*TRAIN, config, after=(4, spoil_the_next_step))
    path = folder / "nonfinite_iter5.pt"
    refused(
        done, 4, "iteration 5", "lr 0.0", "bbox nan", "gradient norm nan", ".jpg", "replay_batch.py", path
    )
    assert checkpoint.latest(folder).next_iteration == 4
    assert not list(folder.glob("model_final*"))


def test_skip_goes_on_and_says_so(config, folder):
    done = run(*TRAIN, config, "TRAIN.ON_NONFINITE", "skip", after=(4, spoil_the_next_step))
    assert done.code == 0, done.err
    assert "step left out, number 1" in done.out and (folder / "nonfinite_iter5.pt").exists()
    assert len(read_history((folder / "metrics.jsonl").read_text().splitlines()).steps) == 8, "for the report"
    final = checkpoint.latest(folder).state
    assert final["iteration"] == 7 and all(v.isfinite().all() for v in final["model"].values())


@pytest.mark.parametrize("last_good", [4, pytest.param(0, marks=pytest.mark.slow)])
def test_rollback_goes_on_from_the_last_checkpoint_with_half_the_rate(trained, config, folder, last_good):
    """A checkpoint is written after iteration 3; before that it is the beginning that the run goes back to."""
    words = ["TRAIN.ON_NONFINITE", "rollback", "DATA.WORKERS", 1]
    done = run(*TRAIN, config, *words, after=(last_good, spoil_the_next_step))
    assert done.code == 0, done.err
    first = 4 if last_good else 0
    assert f"on with iteration {first}, learning rates times 0.5" in done.out
    assert f"iterations {first} to 8" in done.out
    assert checkpoint.latest(folder).state["lr_factor"] == 0.5
    before, found = losses(trained.folder), losses(folder)
    assert list(found) == list(range(8)), "metrics.jsonl reads as one run"
    assert all(before[i] == found[i] for i in range(first)) and before[7] != found[7]


@pytest.mark.slow
def test_a_resumed_run_keeps_the_lower_rate(config, folder):
    words = ["TRAIN.ON_NONFINITE", "rollback", "SOLVER.MAX_ITER"]
    assert run(*TRAIN, config, *words, 6, after=(4, spoil_the_next_step)).code == 0
    done = run(*TRAIN, config, *words, 8)
    assert done.code == 0, done.err
    assert checkpoint.latest(folder).state["lr_factor"] == 0.5


def test_rollback_gives_up_at_its_limit(config, folder):
    words = ["SOLVER.BASE_LR", "1e30", "SOLVER.WARM_UP_ITERS", 0, "TRAIN.ON_NONFINITE", "rollback"]
    done = run(*TRAIN, config, *words, "TRAIN.NONFINITE_LIMIT", 3)
    refused(done, 4, "3 returns were made", "TRAIN.NONFINITE_LIMIT")
    assert done.out.count("back to the beginning of the run") == 3
    assert not list(folder.glob("model_*"))


@pytest.fixture(scope="module")
def diverged(trained, tmp_path_factory):
    """The file that a run with a senseless learning rate left."""
    folder = tmp_path_factory.mktemp("diverged")
    config = folder / "mine.yaml"
    config.write_text(f"_BASE_: {trained.config}\nOUTPUT_DIR: {folder / 'out'}\n")
    assert run(*TRAIN, config, "SOLVER.BASE_LR", "1e30", "SOLVER.WARM_UP_ITERS", 0).code == 4
    return next(folder.rglob("nonfinite_iter*.pt"))


def test_replay_prints_each_loss_as_it_was_and_the_first_bad_module(diverged):
    done = run("replay_batch.py", diverged)
    assert done.code == 0, done.err
    for name, value in replay.load(diverged).state["losses"].items():
        assert f"loss {name}: {value:.9g}\n" in done.out
    name, kind = re.search(
        r"first module with an output that is not finite: (\S+) \((\w+)\)", done.out
    ).groups()
    assert name.startswith("backbone") and kind, done.out
    assert ".jpg" in done.out


@pytest.mark.slow
def test_replay_of_a_model_with_weights_of_classes_and_a_loss_that_counts(config, tmp_path, folder):
    words = ["LOSS.CLASS_WEIGHTS.KIND", "square_root", "SOLVER.BASE_LR", "1e30", "SOLVER.WARM_UP_ITERS", 0]
    assert run(*TRAIN, config, *words).code == 4
    (path,) = folder.glob("nonfinite_iter*.pt")
    done = run("replay_batch.py", path)
    assert done.code == 0, done.err
    assert f"loss cls: {replay.load(path).state['losses']['cls']:.9g}\n" in done.out


def test_replay_with_good_weights_finds_nothing_wrong(diverged, trained):
    done = run("replay_batch.py", "--weights", trained.weights, diverged, "TRAIN.PRECISION", "bf16")
    assert done.code == 0, done.err
    assert "every module's output is finite" in done.out and "every gradient is finite" in done.out


def test_replay_of_what_is_no_replay_exits_3(trained, diverged, tmp_path):
    refused(run("replay_batch.py", trained.folder / "model_iter7.pt"), 3, "model_iter7.pt", "batch")
    refused(run("replay_batch.py", tmp_path / "none.pt"), 3, "none.pt")
    cut = shutil.copy(diverged, tmp_path / "cut.pt")
    cut.write_bytes(cut.read_bytes()[:-900])
    refused(run("replay_batch.py", cut), 3, "cut.pt", "damaged")
    refused(run("replay_batch.py", diverged, "SOLVER.NOTHING", 1), 2, "SOLVER.NOTHING")


def test_replay_of_a_batch_that_does_not_fit_exits_3(diverged, tmp_path):
    state = checkpoint.load(diverged)
    state["batch"]["images"] = torch.zeros(2, 3, 8)
    checkpoint.save(tmp_path / "odd.pt", state)
    refused(run("replay_batch.py", tmp_path / "odd.pt"), 3, "odd.pt")
