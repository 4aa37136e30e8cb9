# SPDX-License-Identifier: Apache-2.0
"""Two trainings in one folder: the second one is refused, and the first does not notice."""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file

from tests.tools.runs import ROOT, run


def start_another(config: str, report: str) -> None:
    """For ``after``: the same command again, while this one trains."""
    os.environ["OMP_NUM_THREADS"] = "1"
    command = [sys.executable, str(ROOT / "tools/train_net.py"), "--cfg", config, "--no-resume"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    Path(report).write_text(json.dumps([done.returncode, done.stderr, os.getpid()]))


def test_the_second_run_is_refused_and_the_first_ends_as_if_alone(trained, config, tmp_path):
    report = tmp_path / "report.json"
    done = run(
        "train_net.py", "--cfg", config, "--skip-test", after=(5, partial(start_another, config, report))
    )
    assert done.code == 0, done.err
    code, error, first = json.loads(report.read_text())
    folder = tmp_path / "out/train/tiny_train/retinanet"
    assert code == 2 and error.count("\n") == 1
    assert f"error: {folder}: in use by process {first}" in error and "OUTPUT_DIR" in error
    expected, found = load_file(trained.weights), load_file(folder / "model_final.safetensors")
    assert all(torch.equal(expected[name], found[name]) for name in expected)
