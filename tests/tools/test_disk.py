# SPDX-License-Identifier: Apache-2.0
"""A disk that is full, small or read-only: told before the first step where it can be known, and nothing is lost."""

import os
import resource
import shutil
import subprocess
from functools import partial

import pytest
import torch
from safetensors.torch import load_file

from detectron_libra.engine import checkpoint
from tests.tools.runs import refused, run

TRAIN = ["train_net.py", "--skip-test", "--cfg"]
#: Bytes; a checkpoint of the tiny model takes a little more than a million.
LESS_THAN_A_CHECKPOINT = 600_000


def limit_files() -> None:
    """What `ulimit -f` and, about so, a quota do; for this process and its children."""
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (LESS_THAN_A_CHECKPOINT, hard))


def fill(place: str) -> None:
    """Takes all the room that is left on a disk."""
    with open(os.path.join(place, "filler"), "wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            pass


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "out/train/tiny_train/retinanet"


@pytest.fixture
def disk(tmp_path):
    """A function that mounts a small disk: options -> its path; skipped where the system allows no mounts."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(options):
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
        if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("mounting is not allowed here")
        return place

    yield mount
    subprocess.run(["umount", str(place)], capture_output=True)


def nothing_was_trained(done, folder):
    assert "json_stats" not in done.out
    assert not (folder / "metrics.jsonl").exists() and not list(folder.glob("*model*"))


def test_a_limit_on_files_is_told_before_the_first_step(config, folder):
    done = run(*TRAIN, config, before=limit_files)
    refused(done, 4, folder, "no room for a checkpoint", "File too large", "OUTPUT_DIR")
    nothing_was_trained(done, folder)
    assert not list(folder.glob("*.tmp*"))


def test_a_limit_that_comes_later_leaves_the_last_checkpoint_to_resume_from(trained, config, folder):
    done = run(*TRAIN, config, after=(4, limit_files))
    refused(done, 4, folder / "model_iter7.pt", "cannot be written", "bytes", "disk full")
    assert [p.name for p in folder.glob("model_*")] == ["model_iter3.pt"]
    assert run(*TRAIN, config, "--resume").code == 0
    expected, found = load_file(trained.weights), load_file(folder / "model_final.safetensors")
    assert all(torch.equal(expected[name], found[name]) for name in expected)


@pytest.mark.parametrize(
    ("size", "words"),
    [("2m", "are free"), pytest.param("1m", "no room for a checkpoint", marks=pytest.mark.slow)],
)
def test_a_small_disk_is_told_before_the_first_step(config, disk, size, words):
    """One has no room for a checkpoint, the other has for one and not for the two that lie there at once."""
    place = disk(f"size={size}")
    done = run(*TRAIN, config, "OUTPUT_DIR", place)
    refused(done, 4, place, words)
    nothing_was_trained(done, place / "train/tiny_train/retinanet")


def test_a_disk_that_fills_up_keeps_the_last_checkpoint(config, disk):
    place = disk("size=12m")
    done = run(*TRAIN, config, "OUTPUT_DIR", place, after=(4, partial(fill, str(place))))
    folder = place / "train/tiny_train/retinanet"
    *warnings, error = done.err.splitlines()
    assert done.code == 4 and error.startswith(f"error: {folder / 'model_iter7.pt'}: cannot be written"), (
        done.err
    )
    assert all("the log is incomplete" in line for line in warnings)
    assert checkpoint.latest(folder).next_iteration == 4
    assert not list(folder.glob("*.tmp*"))
    os.remove(place / "filler")
    assert run(*TRAIN, config, "OUTPUT_DIR", place, "--resume").code == 0


def test_a_read_only_disk_exits_2_before_anything_is_read(config, disk):
    place = disk("size=12m,ro")
    done = run(*TRAIN, config, "OUTPUT_DIR", place)
    refused(done, 2, place, "Read-only file system", "OUTPUT_DIR")
    assert "torch" not in done.out


def test_a_folder_of_the_test_that_cannot_be_used_exits_2_before_the_training(config, tmp_path, folder):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/test").write_text("mine")
    done = run("train_net.py", "--cfg", config)
    refused(done, 2, tmp_path / "out/test", "OUTPUT_DIR")
    nothing_was_trained(done, folder)


def test_a_log_that_cannot_grow_stops_nothing(trained, config, folder):
    """The log and the metrics are on a full disk, the weights are not."""
    folder.mkdir(parents=True)
    for name in ("log.txt", "metrics.jsonl"):
        (folder / name).symlink_to("/dev/full")
    done = run(*TRAIN, config)
    assert done.code == 0, done.err
    assert "the log is incomplete" in done.err and "training goes on without it" in done.out
    expected, found = load_file(trained.weights), load_file(folder / "model_final.safetensors")
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_leftovers_of_a_killed_run_are_removed_at_the_next_start(trained, config, tmp_path, folder):
    shutil.copytree(trained.output / "train", tmp_path / "out/train")
    for name in ("model_iter9.pt.tmp123", "model_final.safetensors.tmp7", ".probe.tmp5", ".room.tmp8"):
        (folder / name).write_bytes(b"half")
    assert run(*TRAIN, config, "SOLVER.MAX_ITER", 9).code == 0
    assert not list(folder.glob("*.tmp*")) and (folder / "model_iter8.pt").exists()
