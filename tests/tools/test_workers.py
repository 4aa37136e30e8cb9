# SPDX-License-Identifier: Apache-2.0
"""A worker that dies or hangs is told with the image it had in its hands, and never makes the run hang."""

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial

import pytest

from detectron_libra.data import loader
from tests.tools.runs import ROOT, refused, run

#: CLONE_NEWNS of <sched.h>: mounts of its own.
NEW_MOUNTS = 0x20000


@pytest.fixture
def words(trained, config, tmp_path):
    """A run of two workers on its own copy of the images, which nobody looked at before."""
    shutil.copytree(trained.config.parent / "train", tmp_path / "data")
    entry = {"IM_DIR": str(tmp_path / "data/images"), "ANN_FN": str(tmp_path / "data/instances.json")}
    pairs = ["DATASETS.tiny_train", json.dumps(entry), "DATA.CHECK", "off", "DATA.WORKERS", 2]
    return ["train_net.py", "--skip-test", "--cfg", config, *pairs]


def block(tmp_path) -> str:
    """An image that nobody ever finishes reading: a pipe without a writer."""
    image = tmp_path / "data/images/000004.jpg"
    image.unlink()
    os.mkfifo(image)
    return str(image)


def test_a_worker_that_hangs_exits_4_with_the_image_in_time(words, tmp_path):
    image, begun = block(tmp_path), time.monotonic()
    refused(run(*words, "DATA.TIMEOUT_S", 2), 4, "hangs", image, "DATA.TIMEOUT_S")
    assert time.monotonic() - begun < 30


def die_over_an_image() -> None:
    """For ``after``: from now on a worker is killed while it reads."""
    prepare = loader.prepare

    def deadly(record, *rest):
        if record.file.endswith("000004.jpg"):
            os.kill(os.getpid(), signal.SIGKILL)
        return prepare(record, *rest)

    loader.prepare = deadly


def test_a_worker_that_is_killed_exits_4_with_the_image(words):
    """The system kills a process that takes too much memory; it cannot say why itself."""
    refused(run(*words, before=die_over_an_image), 4, "worker", "while it read", "000004.jpg", "NUM_THREADS")


def shrink_shared_memory(options: str) -> None:
    """For ``before``: /dev/shm as a container has it, for this process and its children alone."""
    assert ctypes.CDLL(None).unshare(NEW_MOUNTS) == 0
    for mount in (["--make-rprivate", "/"], ["-t", "tmpfs", "-o", options, "tmpfs", "/dev/shm"]):
        subprocess.run(["mount", *mount], check=True)


@pytest.mark.skipif(
    os.geteuid() != 0 or subprocess.run(["unshare", "-m", "true"]).returncode != 0,
    reason="mounting is not allowed here",
)
@pytest.mark.parametrize(("options", "told"), [("size=64k", "no room in shared memory"), ("ro", "Read-only")])
def test_shared_memory_that_is_too_small_is_told_at_once(words, options, told):
    """A batch that a worker cannot hand over would be waited for until DATA.TIMEOUT_S."""
    begun = time.monotonic()
    done = run(*words, before=partial(shrink_shared_memory, options))
    refused(done, 4, told, "/dev/shm", "DATA.WORKERS")
    assert time.monotonic() - begun < 45


def test_a_hanging_worker_does_not_outlive_a_run_that_is_stopped(words, tmp_path):
    """SIGTERM while the step waits for data: the second one ends the run at once, and nothing of it stays."""
    block(tmp_path)
    command = [sys.executable, str(ROOT / "tools" / words[0]), *map(str, words[1:]), "DATA.TIMEOUT_S", "60"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    workers = wait_for_workers(process)
    process.terminate()
    time.sleep(0.5)
    process.terminate()
    assert process.wait(10) == 143
    deadline = time.monotonic() + 20
    while any(map(alive, workers)):
        assert time.monotonic() < deadline, "a worker is left"
        time.sleep(0.2)


def wait_for_workers(process) -> list[int]:
    """Ids of the two workers, once they read."""
    deadline = time.monotonic() + 60
    while True:
        assert process.poll() is None and time.monotonic() < deadline
        with open(f"/proc/{process.pid}/task/{process.pid}/children") as file:
            found = [int(word) for word in file.read().split()]
        if len(found) == 2:
            time.sleep(1)
            return found
        time.sleep(0.1)


def alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for yet does not."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
