# SPDX-License-Identifier: Apache-2.0
"""A run that is stopped or killed goes on to the same weights, bit for bit."""

import shutil
import signal
from functools import partial

import pytest
import torch
from safetensors.torch import load_file

from tests.tools.runs import losses, refused, run, signal_self


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "out/train/tiny_train/retinanet"


def same_as(trained, folder):
    """The weights and every loss are those of the uninterrupted run."""
    expected, found = load_file(trained.weights), load_file(folder / "model_final.safetensors")
    assert expected.keys() == found.keys()
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []
    assert losses(folder) == losses(trained.folder)


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("killed_after", [2, 6])
def test_killed_and_started_again_ends_as_if_nothing_had_happened(
    trained, config, folder, workers, killed_after
):
    """An epoch has 9 steps; a checkpoint is written after iteration 3."""
    words = ["train_net.py", "--cfg", config, "--skip-test", "DATA.WORKERS", workers]
    killed = run(*words, after=(killed_after, partial(signal_self, signal.SIGKILL)))
    assert killed.code == -signal.SIGKILL
    assert (folder / "model_iter3.pt").exists() == (killed_after > 3)
    done = run(*words)
    assert done.code == 0, done.err
    assert f"iterations {4 if killed_after > 3 else 0} to 8" in done.out
    same_as(trained, folder)


@pytest.mark.parametrize(("number", "code", "workers"), [(signal.SIGTERM, 143, 0), (signal.SIGINT, 130, 1)])
def test_interrupted_saves_and_goes_on_with_the_next_iteration(
    trained, config, folder, number, code, workers
):
    words = ["train_net.py", "--cfg", config, "--skip-test", "DATA.WORKERS", workers]
    stopped = run(*words, after=(1, partial(signal_self, number)))
    assert stopped.code == code and "Traceback" not in stopped.err
    # the signal comes within iteration 1, which is finished and saved
    assert [p.name for p in folder.glob("model_*")] == ["model_iter1.pt"]
    done = run(*words, "--resume")
    assert done.code == 0, done.err
    assert "iterations 2 to 8" in done.out
    same_as(trained, folder)


def test_a_changed_configuration_is_refused_by_key_and_force_accepts_it(config, folder):
    words = ["train_net.py", "--cfg", config, "--skip-test"]
    run(*words, after=(1, partial(signal_self, signal.SIGTERM)))
    changed = ["SOLVER.BASE_LR", "0.02", "LIBRA.BALANCED_L1.ALPHA", "0.4"]
    refused(run(*words, *changed), 2, "SOLVER.BASE_LR", "0.02", "LIBRA.BALANCED_L1.ALPHA", "--force")
    assert run(*words, "TEST.NMS", "0.4", "SOLVER.MAX_ITER", 2).code == 0
    done = run(*words, *changed, "--force")
    assert done.code == 0, done.err
    assert "WARNING" in done.out and "iterations 2 to 8" in done.out


def test_a_finished_run_says_complete_and_is_tested_only(trained, config, tmp_path):
    shutil.copytree(trained.output / "train", tmp_path / "out/train")
    weights = tmp_path / "out/train/tiny_train/retinanet/model_final.safetensors"
    before = weights.stat().st_mtime_ns
    done = run("train_net.py", "--cfg", config)
    assert done.code == 0, done.err
    assert "complete" in done.out and "json_stats" not in done.out
    assert weights.stat().st_mtime_ns == before
    written = (tmp_path / "out/test/tiny_val/retinanet/results.json").read_bytes()
    assert written == (trained.tested / "results.json").read_bytes()


def test_a_longer_schedule_goes_on_from_the_finished_run(trained, config, folder, tmp_path):
    shutil.copytree(trained.output / "train", tmp_path / "out/train")
    done = run("train_net.py", "--cfg", config, "--skip-test", "SOLVER.MAX_ITER", 9)
    assert done.code == 0, done.err
    assert "iterations 8 to 9" in done.out
    assert list(losses(folder)) == list(range(9))


def test_no_resume_starts_anew_to_the_same_weights(trained, config, folder, tmp_path):
    shutil.copytree(trained.output / "train", tmp_path / "out/train")
    done = run("train_net.py", "--cfg", config, "--skip-test", "--no-resume")
    assert done.code == 0, done.err
    assert "iterations 0 to 8" in done.out
    same_as(trained, folder)


def test_a_damaged_checkpoint_gives_way_to_the_one_before(trained, config, folder, tmp_path):
    shutil.copytree(trained.output / "train", tmp_path / "out/train")
    newest = folder / "model_iter7.pt"
    newest.write_bytes(newest.read_bytes()[:-1000])
    done = run("train_net.py", "--cfg", config, "--skip-test")
    assert done.code == 0, done.err
    assert "iterations 4 to 8" in done.out and "model_iter7.pt" in done.out
    same_as(trained, folder)


def test_checkpoints_that_are_all_damaged_exit_3(trained, config, folder, tmp_path):
    shutil.copytree(trained.output / "train", tmp_path / "out/train")
    for file in folder.glob("model_iter*.pt"):
        file.write_bytes(b"nothing")
    refused(run("train_net.py", "--cfg", config), 3, folder, "--no-resume")


def test_a_resumed_run_does_without_the_weights_it_began_with(trained, config, folder, tmp_path):
    start = tmp_path / "start.safetensors"
    shutil.copy(trained.weights, start)
    words = ["train_net.py", "--cfg", config, "--skip-test", "TRAIN.WEIGHTS", start]
    assert run(*words, after=(1, partial(signal_self, signal.SIGTERM))).code == 143
    start.unlink()
    done = run(*words)
    assert done.code == 0, done.err
    assert "iterations 2 to 8" in done.out
