# SPDX-License-Identifier: Apache-2.0
"""tools/benchmark_eval.py as users call it, on a small set."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from detectron_libra.benchmarks import evaluation
from detectron_libra.benchmarks.boxes import random_boxes
from detectron_libra.evaluation import fast
from tests.tools.runs import refused, run

ROOT = Path(__file__).resolve().parents[2]
SMALL = ("--images", 40, "--detections", 800, "--classes", 5, "--runs", 2)


def test_figures_on_the_terminal_and_json_in_a_file(tmp_path):
    file = tmp_path / "new" / "result.json"
    words = [str(word) for word in (*SMALL, "--reference-runs", 2, "--json", file)]
    command = [sys.executable, str(ROOT / "tools/benchmark_eval.py"), *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "40 images, 290 true boxes, 800 detections, 5 classes" in done.stdout
    assert "AP " in done.stdout and "ARl " in done.stdout
    content = json.loads(file.read_text())
    assert content["difference"] <= 1e-9 and len(content["numbers"]) == 12
    assert 0.05 < content["numbers"]["AP"] < 0.95
    assert len(content["ours"]) == 6 and len(content["theirs"]) == len(content["loading"]) == 2
    assert len(content["sample"]) == (6 if fast.installed() else 0)
    assert all(seconds > 0 for name in ("ours", "theirs", "loading") for seconds in content[name])


def test_other_numbers_than_pycocotools_are_told(monkeypatch):
    monkeypatch.setattr(
        evaluation,
        "evaluate_arrays",
        lambda *_: dict.fromkeys((*evaluation.METRICS, *evaluation.RECALLS), 0.5),
    )
    timing = evaluation.measure(*random_boxes(10, 50, 2), runs=1, reference_runs=1)
    assert timing.difference > 1e-3


def test_no_size_below_one_and_no_keys():
    refused(run("benchmark_eval.py", "--images", 0), 2, "--images 0", "1 or more")
    refused(run("benchmark_eval.py", "TEST.SCALE", 4), 2, "TEST.SCALE")


@pytest.mark.parametrize("sizes", [(50, 1000, 80), (1, 1, 1), (3, 5, 2)])
def test_made_up_boxes_have_the_size_asked_for_and_are_the_same_each_time(sizes):
    truth, found = random_boxes(*sizes, seed=5)
    images, detections, classes = sizes
    assert len(found.images) == detections and len(truth.images) == round(7.25 * images)
    for boxes in (truth, found):
        assert (boxes.boxes[:, 2:] >= 1).all() and (np.diff(boxes.images) >= 0).all()
        for numbers, most in ((boxes.images, images), (boxes.classes, classes)):
            assert numbers.min() >= 1 and numbers.max() <= most
    again, _ = random_boxes(*sizes, seed=5)
    np.testing.assert_array_equal(truth.boxes, again.boxes)
    assert detections < 1000 or (truth.crowd.any() and len(np.unique(found.scores)) < detections)
