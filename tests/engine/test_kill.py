# SPDX-License-Identifier: Apache-2.0
"""A kill at any instant of a save loses no finished checkpoint, and leaves nothing that the next start trusts."""

import json
import os
import shutil
from functools import partial

import pytest

from detectron_libra import files
from detectron_libra.engine.jsonl import JsonLines
from tests.engine.killing import kill_at_operation, kill_at_random, newest, save

#: Numbers of each tensor, of which a checkpoint has two.
SIZE = 100_000


def clean(folder):
    """What the next start does, and that it leaves checkpoints alone."""
    files.remove_leftovers(folder)
    assert all(name.startswith("model_iter") and name.endswith(".pt") for name in os.listdir(folder))


def test_killed_at_random_instants_while_it_saves(tmp_path):
    halves, finished = kill_at_random(tmp_path, 20, size=SIZE, seed=0)
    assert halves > 0 and finished > 5, "kills met files that were half written, and finished ones"
    clean(tmp_path)


@pytest.mark.slow
def test_killed_three_hundred_times_while_it_saves(tmp_path):
    halves, finished = kill_at_random(tmp_path, 300, size=SIZE, seed=1)
    print(f"300 kills, {halves} of them while a file was half written; {finished} checkpoints were finished")
    assert halves > 30 and finished > 100
    clean(tmp_path)


def operations(folder, work, step):
    """Kills ``work`` at every ``step``-th file operation, in a fresh copy of the folder each time.

    Returns:
        (number of operations, the newest iterations that were found after the kills).
    """
    number, found = 0, []
    while True:
        copy = folder.with_name(f"{folder.name}_{number}")
        shutil.copytree(folder, copy)
        if not kill_at_operation(partial(work, copy), number):
            break
        found.append(newest(copy))
        clean(copy)
        shutil.rmtree(copy)
        number += step
    shutil.rmtree(copy)
    return number, found


@pytest.mark.parametrize("step", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_at_the_file_operations_of_one_save(tmp_path, step):
    """Two checkpoints are there; the third is written, and the first removed. The newest goes from 2 to 3 once."""
    folder = tmp_path / "run"
    folder.mkdir()
    for iteration in (1, 2):
        save(folder, iteration, 1000)
    number, found = operations(folder, lambda copy: save(copy, 3, 1000), step)
    print(f"{len(found)} kills at {number} operations")
    assert found == sorted(found) and set(found) == {2, 3}


def test_metrics_are_whole_after_a_kill_while_they_are_cut(tmp_path):
    """A resumed run drops the lines of the steps it repeats; those before are never lost."""
    path, number = tmp_path / "metrics.jsonl", 0
    whole = "".join(json.dumps({"iter": i}) + "\n" for i in range(20))
    while True:
        path.write_text(whole)
        killed = kill_at_operation(lambda: JsonLines(path, 10), number)
        kept = [json.loads(line)["iter"] for line in path.read_text().splitlines()]
        assert kept in (list(range(20)), list(range(10)))
        if not killed:
            break
        number += 1
    assert kept == list(range(10)) and number > 4
