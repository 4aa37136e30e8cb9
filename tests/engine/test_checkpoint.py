# SPDX-License-Identifier: Apache-2.0
"""A checkpoint is whole or not there, is checked before it is used, and cannot run code."""

import errno
import os
import pickle
import random
import resource
import signal
import time
import zipfile

import numpy as np
import pytest
import torch

from detectron_libra import files
from detectron_libra.engine import checkpoint, rng, weights_file
from detectron_libra.engine.optim import build_optimizer
from detectron_libra.errors import InputError, RunError
from tests.engine.toy import CLASS_NAMES, Toy, run


def state_of(iteration=4, size=10, fill=1.0):
    return {
        "model": {"w": torch.full((size,), fill)},
        "optimizer": {},
        "iteration": iteration,
        "rng": rng.get_state(),
        "metrics": {},
        "config": "",
        "class_names": [],
    }


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (self.path,))


def test_random_state_survives():
    state = rng.get_state()
    first = torch.rand(3), np.random.rand(3), random.random()  # noqa: NPY002
    rng.set_state(state)
    second = torch.rand(3), np.random.rand(3), random.random()  # noqa: NPY002
    assert torch.equal(first[0], second[0])
    assert (first[1] == second[1]).all()
    assert first[2] == second[2]


def test_round_trip_with_random_state(tmp_path):
    saved = state_of()
    checkpoint.save(tmp_path / "model_iter4.pt", saved)
    loaded = checkpoint.load(tmp_path / "model_iter4.pt")
    assert torch.equal(loaded["model"]["w"], saved["model"]["w"])
    rng.set_state(loaded["rng"])
    drawn = torch.rand(2)
    rng.set_state(saved["rng"])
    assert torch.equal(drawn, torch.rand(2))
    assert os.listdir(tmp_path) == ["model_iter4.pt"]


def damage(path, how):
    content = path.read_bytes()
    flipped = bytearray(content)
    flipped[content.index(np.float32(1.0).tobytes() * 4) + 2] ^= 1
    path.write_bytes(
        {
            "empty": b"",
            "text": b"version https://git-lfs.github.com/spec/v1\n",
            "cut": content[: len(content) // 2],
            "bit flipped": bytes(flipped),
            "old pickle": pickle.dumps({"model": {}}),
        }[how]
    )


@pytest.mark.parametrize("how", ["empty", "text", "cut", "bit flipped", "old pickle"])
def test_damaged_file_is_named(tmp_path, how):
    path = tmp_path / "model_iter4.pt"
    checkpoint.save(path, state_of())
    damage(path, how)
    with pytest.raises(InputError, match="model_iter4.pt: damaged or not a checkpoint") as error:
        checkpoint.load(path)
    assert "\n" not in str(error.value)


def test_a_file_that_runs_code_is_refused(tmp_path):
    path, marker = tmp_path / "model_iter4.pt", tmp_path / "ran"
    torch.save(state_of() | {"extra": Touch(str(marker))}, path)
    with pytest.raises(InputError, match="damaged or not a checkpoint"):
        checkpoint.load(path)
    assert not marker.exists()


def test_compressed_parts_are_refused(tmp_path):
    path = tmp_path / "model_iter4.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", b"0" * 1000)
    with pytest.raises(InputError, match="compressed parts"):
        checkpoint.load(path)


def test_latest_goes_back_to_the_last_good_one(tmp_path, caplog):
    assert checkpoint.latest(tmp_path) is None
    for iteration in (9, 99, 199):
        checkpoint.save(checkpoint.path_of(tmp_path, iteration), state_of(iteration))
    (tmp_path / "model_iter999.pt.tmp77").write_bytes(b"half")
    damage(tmp_path / "model_iter199.pt", "cut")
    found = checkpoint.latest(tmp_path)
    assert (found.path.name, found.next_iteration) == ("model_iter99.pt", 100)
    assert "model_iter199.pt" in caplog.text
    for iteration in (9, 99):
        damage(tmp_path / f"model_iter{iteration}.pt", "empty")
    with pytest.raises(
        InputError, match=r"none of the checkpoints.*3 in.*model_iter.*damaged or not a checkpoint"
    ):
        checkpoint.latest(tmp_path)


def test_prune_keeps_the_newest_and_drops_a_run_that_was_given_up(tmp_path):
    for iteration in (9, 19, 29, 999):
        checkpoint.path_of(tmp_path, iteration).write_bytes(b"")
    checkpoint.prune(tmp_path, newest=29, keep=2)
    assert sorted(os.listdir(tmp_path)) == ["model_iter19.pt", "model_iter29.pt"]
    checkpoint.prune(tmp_path, newest=29, keep=0)
    assert len(os.listdir(tmp_path)) == 2


def test_restore_refuses_other_classes_models_and_bare_weights(tmp_path):
    run(tmp_path, max_iter=2)
    found = checkpoint.latest(tmp_path)
    wide, toy = Toy(channels=8), Toy()
    with pytest.raises(InputError, match="trained on 2 classes .*this run has 3"):
        checkpoint.restore(found, toy, build_optimizer(toy, lr=0.1), class_names=("a", "b", "c"))
    with pytest.raises(InputError, match="of another model: conv.weight has shape"):
        checkpoint.restore(found, wide, build_optimizer(wide, lr=0.1), class_names=CLASS_NAMES)
    del found.state["optimizer"]
    with pytest.raises(InputError, match="no optimizer in it"):
        checkpoint.restore(found, toy, build_optimizer(toy, lr=0.1))


@pytest.mark.parametrize("kind", ["checkpoint", "safetensors"])
def test_disk_full_is_one_line_and_leaves_the_old_file(tmp_path, kind):
    path = tmp_path / ("model_iter4.pt" if kind == "checkpoint" else "model_final.safetensors")

    def save(size):
        if kind == "checkpoint":
            checkpoint.save(path, state_of(size=size))
        else:
            weights_file.save_safetensors(path, {"w": torch.zeros(size)}, {})

    save(10)
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(
            RunError, match=rf"{path.name}: cannot be written, 4\d{{5}} bytes .*disk full"
        ) as error:
            save(100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(error.value)
    assert os.listdir(tmp_path) == [path.name]
    assert path.read_bytes() == before


def test_kill_while_writing_leaves_a_good_file(tmp_path):
    """Writers that rewrite one file without a pause are killed at random moments."""
    path, generator = tmp_path / "model_iter4.pt", random.Random(0)
    checkpoint.save(path, state_of(size=300_000))
    for _ in range(12):
        child = os.fork()
        if child == 0:
            while True:
                checkpoint.save(path, state_of(size=300_000))
        time.sleep(generator.uniform(0.005, 0.06))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        assert checkpoint.latest(tmp_path).state["iteration"] == 4
    files.remove_leftovers(tmp_path)
    assert os.listdir(tmp_path) == ["model_iter4.pt"]


def test_weights_and_their_texts_come_back(tmp_path):
    path = run(tmp_path, max_iter=2)
    from_final, texts = weights_file.load_weights(path)
    from_checkpoint, same = weights_file.load_weights(tmp_path / "model_iter1.pt")
    assert texts == same
    assert texts["config"] == "A: 1\n"
    assert texts["class_names"] == '["circle", "square"]'
    assert texts["iteration"] == "1"
    assert all(torch.equal(from_final[name], from_checkpoint[name]) for name in Toy().state_dict())
    assert path.stat().st_mode == (tmp_path / "model_iter1.pt").stat().st_mode


def test_shared_and_channels_last_weights_are_stored(tmp_path):
    w = torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last)
    weights_file.save_safetensors(tmp_path / "w.safetensors", {"a": w, "b": w}, {})
    loaded, _ = weights_file.load_weights(tmp_path / "w.safetensors")
    assert torch.equal(loaded["a"], w)
    assert torch.equal(loaded["b"], w)


def test_damaged_safetensors(tmp_path):
    (tmp_path / "w.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(InputError, match="w.safetensors: damaged"):
        weights_file.load_weights(tmp_path / "w.safetensors")
    with pytest.raises(InputError, match="none.safetensors: no such file"):
        weights_file.load_weights(tmp_path / "none.safetensors")


def test_a_folder_without_rights_is_a_run_error(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)  # the tests may run as root, whom no folder refuses
    with pytest.raises(RunError, match="Permission denied"):
        checkpoint.save(tmp_path / "model_iter4.pt", state_of())
    assert os.listdir(tmp_path) == []
