# SPDX-License-Identifier: Apache-2.0
"""Two trainings in one folder: the second one is refused, and the first does not notice."""

import json
from functools import partial

import torch
from safetensors.torch import load_file

from tests.tools.runs import run, run_another


def test_the_second_run_is_refused_and_the_first_ends_as_if_alone(trained, config, tmp_path):
    report = tmp_path / "report.json"
    another = partial(run_another, report, "train_net.py", "--cfg", config, "--no-resume")
    done = run("train_net.py", "--cfg", config, "--skip-test", after=(5, another))
    assert done.code == 0, done.err
    first, code, _, error = json.loads(report.read_text())
    folder = tmp_path / "out/train/tiny_train/retinanet"
    assert code == 2 and error.count("\n") == 1
    assert f"error: {folder}: in use by process {first}" in error and "OUTPUT_DIR" in error
    expected, found = load_file(trained.weights), load_file(folder / "model_final.safetensors")
    assert all(torch.equal(expected[name], found[name]) for name in expected)
