# SPDX-License-Identifier: Apache-2.0
"""report.html: what a training leaves, how it is written again, and what it says where something is missing."""

import json
import shutil
import signal
from functools import partial

import pytest

from tests.report import reading
from tests.tools.runs import refused, run, signal_self


@pytest.fixture
def output(trained, tmp_path):
    """The output of the training in another place."""
    return shutil.copytree(trained.output, tmp_path / "moved")


def folder_of(output):
    return output / "train/tiny_train/retinanet"


def text_of(output):
    return reading.words((folder_of(output) / "report.html").read_text(encoding="utf-8"))


def rebuilt(output):
    done = run("report.py", folder_of(output))
    assert done.code == 0 and done.err == "", done.err
    return text_of(output)


def test_a_training_leaves_a_page_with_its_results_that_loads_nothing(trained):
    page = (trained.folder / "report.html").read_text(encoding="utf-8")
    text = text_of(trained.output)
    results = json.loads((trained.tested / "results.json").read_text())["tiny_val"]
    assert f"AP {100 * results['box']['AP']:.1f}, AP50 {100 * results['box']['AP50']:.1f}" in text
    assert "8 of 8" in text and "Libra parts balanced L1, balanced pyramid" in text
    for part in ("circle", "Best images", "Worst images", "LOSS.WEIGHTS.BBOX", "torch 2"):
        assert part in text
    # A training of seconds: boxes are right at the threshold, below it alone, or nowhere.
    below = not results["boxes_at_threshold"]["recall"] and results["box"]["AP50"] > 0
    assert ("No box of score 0.5 (TEST.CONCEPT_THRESH) or above is right" in text) == below
    assert page.count("data:image/jpeg;base64,") == 5  # the set has five images
    for word in ("<script", "http://www.w3.org", "https://", "src=", "<link"):
        kept = page.replace('xmlns="http://www.w3.org/2000/svg"', "").replace('src="data:', "")
        assert word not in kept
    assert len(page) < 3_000_000


def test_it_is_written_again_from_the_folder_or_the_output_wherever_they_lie_now(trained, output):
    before = text_of(trained.output)
    (folder_of(output) / "report.html").unlink()
    done = run("report.py", output)
    assert done.code == 0 and done.out.splitlines()[-1] == str(folder_of(output) / "report.html")
    cut = "This report was written with"
    assert text_of(output).partition(cut)[0] == before.partition(cut)[0]


def test_what_is_missing_is_said(output):
    tested = output / "test/tiny_val/retinanet"
    (tested / "results.json").write_text("{")
    assert "results.json cannot be read" in rebuilt(output)
    (tested / "results.json").write_text(
        '{"tiny_val": {"box": {"AP": 1}, "concept": {}, "boxes_at_threshold": 2}}'
    )
    assert "results.json has another layout than ours" in rebuilt(output)
    (tested / "detections.pkl").write_bytes(b"not a pickle")
    assert "No curves and no images: " in rebuilt(output)
    shutil.rmtree(output / "test")
    assert "There are no detections: the run was not tested on this set" in rebuilt(output)
    (folder_of(output) / "metrics.jsonl").unlink()
    assert "metrics.jsonl has no line about a step" in rebuilt(output)
    (folder_of(output) / "model_final.safetensors").unlink()
    assert "The run is not complete: its weights were not tested" in rebuilt(output)


def test_detections_older_than_the_weights_are_pointed_out(output):
    (folder_of(output) / "model_final.safetensors").touch()
    assert "older than the final weights" in rebuilt(output)


def test_a_run_without_annotations_or_images_still_has_a_page(trained, config, tmp_path):
    values = json.loads((trained.config.parent / "val/instances.json").read_text())
    del values["annotations"]
    file = tmp_path / "images.json"
    file.write_text(json.dumps(values))
    images = shutil.copytree(trained.images, tmp_path / "images")
    entry = json.dumps({"IM_DIR": str(images), "ANN_FN": str(file)})
    done = run("train_net.py", "--cfg", config, "SOLVER.MAX_ITER", 1, "DATASETS.tiny_val", entry)
    assert done.code == 0, done.err
    assert "The set has no annotations" in text_of(tmp_path / "out")


def test_an_image_that_is_gone_is_left_out_by_name(trained, config, tmp_path):
    images = shutil.copytree(trained.images, tmp_path / "images")
    entry = {"IM_DIR": str(images), "ANN_FN": str(trained.config.parent / "val/instances.json")}
    done = run("train_net.py", "--cfg", config, "SOLVER.MAX_ITER", 1, "DATASETS.tiny_val", json.dumps(entry))
    assert done.code == 0, done.err
    gone = sorted(images.iterdir())[0]
    gone.unlink()
    text = rebuilt(tmp_path / "out")
    assert f"An image is left out: {gone}" in text and text.count(" wrong, ") == 4


def test_an_interrupted_training_leaves_a_page_that_says_how_far_it_came(config, tmp_path):
    done = run("train_net.py", "--cfg", config, after=(2, partial(signal_self, signal.SIGTERM)))
    assert done.code == 143 and "Traceback" not in done.err
    assert "There are no final weights: metrics.jsonl ends after 3 of 8 iterations" in text_of(
        tmp_path / "out"
    )


def test_a_training_that_fails_leaves_a_page_and_its_own_error(config, tmp_path):
    done = run("train_net.py", "--cfg", config, "SOLVER.BASE_LR", "1e30", "SOLVER.WARM_UP_ITERS", 0)
    assert done.code == 4 and "Traceback" not in done.out
    assert "There are no final weights" in text_of(tmp_path / "out")


def test_a_folder_that_is_no_run_is_refused(trained, tmp_path):
    refused(run("report.py", tmp_path), 3, tmp_path, "config.yaml")
    for name in ("a", "b"):
        shutil.copytree(
            trained.folder, tmp_path / "train" / name / "retinanet", ignore=lambda *_: ["model_iter3.pt"]
        )
    refused(run("report.py", tmp_path), 2, "several", tmp_path / "train/a/retinanet")
    (tmp_path / "train/a/retinanet/config.yaml").write_text("SOLVER: [")
    assert run("report.py", tmp_path / "train/a/retinanet").code in (2, 3)
