# SPDX-License-Identifier: Apache-2.0
"""The folder, the lock on it, and the settings of the processor."""

import ctypes
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from detectron_libra import files
from detectron_libra.engine.cpu import tune_cpu
from detectron_libra.engine.lock import locked
from detectron_libra.errors import UsageError

ROOT = Path(__file__).resolve().parents[2]


def test_atomic_write_replaces_or_leaves(tmp_path):
    path = tmp_path / "a"
    files.atomic_write(path, b"old")

    def half(temporary):
        temporary.write_bytes(b"ne")
        raise ValueError("stopped")

    with pytest.raises(ValueError, match="stopped"):
        files.atomic_write(path, half)
    assert path.read_bytes() == b"old"
    files.atomic_write(path, lambda temporary: temporary.write_bytes(b"new"))
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a"]


def test_ensure_writable_makes_the_folder_and_leaves_nothing_in_it(tmp_path):
    folder = files.ensure_writable(tmp_path / "out" / "train")
    assert os.listdir(folder) == []


def test_a_file_in_the_place_of_the_folder_or_above_it_is_named(tmp_path):
    (tmp_path / "out").write_text("")
    for folder in (tmp_path / "out", tmp_path / "out" / "train"):
        with pytest.raises(UsageError, match=f"{folder}: cannot be written to .*OUTPUT_DIR"):
            files.ensure_writable(folder)


def test_a_folder_that_cannot_be_written_is_named():
    with pytest.raises(UsageError, match="/proc/nothing: cannot be written to"):
        files.ensure_writable("/proc/nothing")


def start_holder(folder):
    """A process that holds the folder until it is told a line."""
    script = (
        "import sys\n"
        "from detectron_libra.engine.lock import locked\n"
        "with locked(sys.argv[1]): print('in', flush=True); input(); print('out', flush=True)\n"
    )
    command = [sys.executable, "-c", script, str(folder)]
    holder = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "in\n"
    return holder


def test_a_second_process_can_wait_for_the_first(tmp_path):
    first = start_holder(tmp_path)
    entered = []
    timer = threading.Timer(0.2, lambda: (entered.append("told"), first.communicate("go\n")))
    timer.start()
    with locked(tmp_path, wait=True):
        entered.append("in")
    timer.join()
    assert entered == ["told", "in"] and first.returncode == 0


def test_a_second_process_is_refused_by_name_until_the_first_is_gone(tmp_path):
    first = start_holder(tmp_path)
    with pytest.raises(UsageError, match=f"in use by process {first.pid}"), locked(tmp_path):
        pass
    first.kill()
    first.communicate()
    with locked(tmp_path) as path:
        assert path.read_text() == f"{os.getpid()}\n"


def test_tune_cpu_says_what_it_did():
    threads = torch.get_num_threads()
    try:
        line = tune_cpu(threads=1)
        assert line.startswith("cpu: 1 threads, denormals ")
        if "flushed" in line:
            tiny = torch.full((8,), 1e-39)
            assert (tiny * 0.5 == 0).all()
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(threads)
    assert tune_cpu(flush_denormal=False, tune_malloc=False) == f"cpu: {threads} threads"


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="not glibc")
def test_freed_memory_is_used_again():
    """Without the setting each large tensor is a fresh mapping, which is faulted in page by page."""
    script = (
        "import resource, sys, torch\n"
        "from detectron_libra.engine.cpu import tune_cpu\n"
        "tune_cpu(threads=1, tune_malloc=sys.argv[1] == 'tuned')\n"
        "for _ in range(12): torch.ones(16 * 2**20).sum()\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "for _ in range(4): torch.ones(16 * 2**20).sum()\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)\n"
    )
    runs = [[sys.executable, "-c", script, word] for word in ("tuned", "plain")]
    tuned, plain = (int(subprocess.run(r, cwd=ROOT, check=True, capture_output=True).stdout) for r in runs)
    assert tuned * 10 < plain
