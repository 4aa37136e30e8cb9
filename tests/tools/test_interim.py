# SPDX-License-Identifier: Apache-2.0
"""Evaluations in the middle of a training: at once or in the background, the training and the numbers are the same."""

import json
import shutil
import signal
from functools import partial

import pytest
import torch
from safetensors.torch import load_file

from tests.tools.runs import refused, run, signal_self

EVERY_THIRD = ("TRAIN.EVAL_PERIOD", 3, "TRAIN.EVAL_RESULTS", True)
BACKGROUND = ("TRAIN.EVAL_IN_BACKGROUND", True)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "out/train/tiny_train/retinanet"


def evaluations(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {line["iter"]: line["eval"] for line in lines if "eval" in line}


def same_weights(trained, folder):
    expected, found = load_file(trained.weights), load_file(folder / "model_final.safetensors")
    return expected.keys() == found.keys() and all(torch.equal(expected[k], found[k]) for k in expected)


@pytest.fixture(scope="module")
def at_once(trained, tmp_path_factory):
    """The folder of a run that waits for its evaluations."""
    output = tmp_path_factory.mktemp("at_once")
    done = run("train_net.py", "--cfg", trained.config, *EVERY_THIRD, "OUTPUT_DIR", output)
    assert done.code == 0, done.err
    return output / "train/tiny_train/retinanet"


def test_in_the_background_nothing_changes_but_the_wait(trained, at_once, config, folder):
    done = run("train_net.py", "--cfg", config, *EVERY_THIRD, *BACKGROUND)
    assert done.code == 0 and done.err == "", done.err
    found = evaluations(folder)
    assert found == evaluations(at_once) and list(found) == [2, 5]
    assert found[2]["tiny_val"].keys() == {"box"} and {"AP", "AR100"} <= found[2]["tiny_val"]["box"].keys()
    for iteration in (2, 5):
        name = f"bbox_tiny_val_results_iter{iteration}.json"
        assert (folder / name).read_bytes() == (at_once / name).read_bytes()
        assert len(json.loads((folder / name).read_text())) > 5
        assert f"iteration {iteration}: tiny_val AP " in done.out
    assert same_weights(trained, folder) and same_weights(trained, at_once)


def test_an_interrupt_waits_for_what_is_measured_and_the_run_goes_on(trained, at_once, config, folder):
    words = ["train_net.py", "--cfg", config, *EVERY_THIRD, *BACKGROUND]
    stopped = run(*words, after=(3, partial(signal_self, signal.SIGTERM)))
    assert stopped.code == 143 and "Traceback" not in stopped.err
    first = evaluations(at_once)[2]
    assert evaluations(folder) == {2: first}
    done = run(*words, "--resume")
    assert done.code == 0, done.err
    assert evaluations(folder) == evaluations(at_once)
    assert same_weights(trained, folder)


def test_a_file_that_breaks_meanwhile_ends_the_run_with_its_name(trained, config, folder, tmp_path):
    truth = tmp_path / "truth.json"
    shutil.copy(trained.config.parent / "val/instances.json", truth)
    entry = json.dumps({"IM_DIR": str(trained.images), "ANN_FN": str(truth)})
    words = ["--cfg", config, *EVERY_THIRD, *BACKGROUND, "DATASETS.tiny_val", entry]
    done = run("train_net.py", *words, after=(1, partial(truth.write_text, "{")))
    refused(done, 3, truth, "cannot be read for evaluation")
    assert (folder / "model_iter2.pt").exists() and not (folder / "model_final.safetensors").exists()
    shutil.copy(trained.config.parent / "val/instances.json", truth)
    assert run("train_net.py", *words).code == 0
    assert 5 in evaluations(folder) and same_weights(trained, folder)
