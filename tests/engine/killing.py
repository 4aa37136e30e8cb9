# SPDX-License-Identifier: Apache-2.0
"""Processes that save without a pause and are killed: at a random instant, or at a chosen operation."""

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from detectron_libra.engine import checkpoint, rng

#: Functions written in C that touch files, by the names they have in Python and in PyTorch.
OPERATIONS = {
    *("open", "close", "write", "fsync", "replace", "rename", "unlink", "chmod", "utime", "stat", "lstat"),
    *("scandir", "write_record", "write_end_of_file", "PyTorchFileWriter", "__init__", "__exit__"),
}


def state_of(iteration: int, size: int) -> dict:
    """A state whose weights tell its iteration."""
    return {
        "model": {"w": torch.full((size,), float(iteration)), "v": torch.full((size,), float(iteration))},
        "optimizer": {},
        "iteration": iteration,
        "rng": rng.get_state(),
        "metrics": {},
        "config": "",
        "class_names": [],
    }


def save(folder: Path, iteration: int, size: int) -> None:
    """What a run does after an iteration."""
    checkpoint.save(checkpoint.path_of(folder, iteration), state_of(iteration, size))
    checkpoint.prune(folder, newest=iteration, keep=2)


def newest(folder: Path) -> int:
    """The iteration of the newest checkpoint, which is whole."""
    found = checkpoint.latest(folder)
    iteration = found.state["iteration"]
    assert found.path == checkpoint.path_of(folder, iteration)
    assert all((v == iteration).all() for v in found.state["model"].values())
    return iteration


def in_a_child(work: Callable[[], None]) -> int:
    """Runs ``work`` in a copy of this process; returns its id."""
    child = os.fork()
    if child:
        return child
    try:
        work()
    finally:
        os._exit(0)


def kill_at_random(folder: Path, kills: int, *, size: int, seed: int) -> tuple[int, int]:
    """A run that saves without a pause is killed and resumed; each time nothing that was finished is lost.

    Returns:
        How many kills came while a file was half written, and how many checkpoints were finished.
    """
    draw, halves = random.Random(seed), 0
    save(folder, 0, size)
    for _ in range(kills):
        begin, (told, tell) = newest(folder) + 1, os.pipe()

        def work(begin=begin, tell=tell):
            for iteration in range(begin, begin + 10_000):
                save(folder, iteration, size)
                os.write(tell, iteration.to_bytes(4, "little"))

        child = in_a_child(work)
        os.close(tell)
        time.sleep(draw.uniform(0.002, 0.2))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        finished = read_all(told)
        last = int.from_bytes(finished[-4:], "little") if finished else begin - 1
        assert last <= newest(folder) <= last + 1
        halves += bool(list(folder.glob(f"*.tmp{child}")))
    return halves, newest(folder)


def read_all(pipe: int) -> bytes:
    """All that was written into a pipe whose writers are gone."""
    parts = b""
    while part := os.read(pipe, 65536):
        parts += part
    os.close(pipe)
    return parts


def kill_at_operation(work: Callable[[], None], number: int) -> bool:
    """Runs ``work`` in a child that dies right before or after its file operation ``number``.

    Returns:
        Whether there was such an operation.
    """

    def killed() -> None:
        left = number

        def profile(frame, event, function):
            nonlocal left
            if event in ("c_call", "c_return") and getattr(function, "__name__", "") in OPERATIONS:
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                left -= 1

        sys.setprofile(profile)
        work()
        sys.setprofile(None)

    _, status = os.waitpid(in_a_child(killed), 0)
    return os.WIFSIGNALED(status)
