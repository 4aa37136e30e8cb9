# SPDX-License-Identifier: Apache-2.0
"""Testing weights gives what the training's own test gave."""

import json
import shutil
import threading

import pytest

from tests.data.test_voc import write
from tests.tools.runs import refused, run


def test_the_results_are_those_of_the_training(trained, config, tmp_path):
    done = run("test_net.py", "--cfg", config, "TEST.WEIGHTS", trained.weights)
    assert done.code == 0 and done.err == ""
    folder = tmp_path / "out/test/tiny_val/retinanet"
    for name in ("results.json", "bbox_tiny_val_results.json"):
        assert (folder / name).read_bytes() == (trained.tested / name).read_bytes(), name


def test_a_checkpoint_of_the_last_iteration_gives_the_same(trained, config, tmp_path):
    done = run("test_net.py", "TEST.WEIGHTS", trained.folder / "model_iter7.pt", "--cfg", config)
    assert done.code == 0, done.err
    written = (tmp_path / "out/test/tiny_val/retinanet/results.json").read_bytes()
    assert written == (trained.tested / "results.json").read_bytes()


def test_class_names_come_from_the_weights_whatever_the_order_in_the_file(trained, config, tmp_path):
    values = json.loads((trained.config.parent / "val/instances.json").read_text())
    values["categories"].reverse()
    file = tmp_path / "reversed.json"
    file.write_text(json.dumps(values))
    entry = json.dumps({"IM_DIR": str(trained.images), "ANN_FN": str(file)})
    done = run("test_net.py", "--cfg", config, "TEST.WEIGHTS", trained.weights, "DATASETS.tiny_val", entry)
    if done.code == 0:
        written = json.loads((tmp_path / "out/test/tiny_val/retinanet/results.json").read_text())
        expected = json.loads((trained.tested / "results.json").read_text())
        assert written["tiny_val"]["box"]["per_class"] == expected["tiny_val"]["box"]["per_class"]
    else:
        refused(done, 3, "reversed.json", "circle")


def test_weights_of_other_classes_exit_3_with_both_names(trained, config, tmp_path):
    values = json.loads((trained.config.parent / "val/instances.json").read_text())
    values["categories"][1]["name"] = "box"
    file = tmp_path / "other.json"
    file.write_text(json.dumps(values))
    entry = json.dumps({"IM_DIR": str(trained.images), "ANN_FN": str(file)})
    done = run("test_net.py", "--cfg", config, "TEST.WEIGHTS", trained.weights, "DATASETS.tiny_val", entry)
    refused(done, 3, "other.json", "box", "square")


def test_a_set_without_annotations_is_detected_on_and_not_measured(trained, config, tmp_path):
    values = json.loads((trained.config.parent / "val/instances.json").read_text())
    del values["annotations"]
    file = tmp_path / "image_info.json"
    file.write_text(json.dumps(values))
    entry = json.dumps({"IM_DIR": str(trained.images), "ANN_FN": str(file)})
    done = run("test_net.py", "--cfg", config, "TEST.WEIGHTS", trained.weights, "DATASETS.tiny_val", entry)
    assert done.code == 0, done.err
    folder = tmp_path / "out/test/tiny_val/retinanet"
    assert {p.name for p in folder.iterdir()} == {"detections.pkl", "bbox_tiny_val_results.json"}


def test_no_weights_exit_2_and_missing_ones_3(config, tmp_path):
    refused(run("test_net.py", "--cfg", config), 2, "TEST.WEIGHTS")
    missing = tmp_path / "gone.safetensors"
    refused(run("test_net.py", "--cfg", config, "TEST.WEIGHTS", missing), 3, missing)


def test_weights_of_another_model_exit_3_with_a_layer(trained, config):
    done = run("test_net.py", "--cfg", config, "TEST.WEIGHTS", trained.weights, "FPN.DIM", 32)
    refused(done, 3, trained.weights, "32", "16")


def test_weights_that_are_waited_for_are_tested_once_they_are_there(trained, config, tmp_path):
    weights = tmp_path / "later.safetensors"
    words = ["--cfg", config, "TEST.WEIGHTS", weights, "--wait"]
    timer = threading.Timer(1.5, shutil.copy, (trained.weights, weights))
    timer.start()
    try:
        done = run("test_net.py", *words)
    finally:
        timer.join()
    assert done.code == 0, done.err
    assert done.out.count("waiting for") == 1 and str(weights) in done.out


@pytest.mark.parametrize("word", [["--no-wait"], ["--wait", "False"], ["--wait=no"]])
def test_weights_that_are_not_waited_for_exit_3(config, tmp_path, word):
    weights = tmp_path / "gone.safetensors"
    refused(run("test_net.py", *word, "--cfg", config, "TEST.WEIGHTS", weights), 3, weights)


def test_waiting_needs_a_name_and_a_truth_value(config):
    refused(run("test_net.py", "--wait", "--cfg", config), 2, "TEST.WEIGHTS")
    refused(run("test_net.py", "--wait", "perhaps", "--cfg", config), 2, "--wait", "perhaps")


def test_vis_draws_every_image_with_a_box_of_the_threshold(trained, config, tmp_path):
    words = ["--cfg", config, "TEST.WEIGHTS", trained.weights, "VIS_TH", 0.0]
    assert run("test_net.py", "--vis", *words).code == 0
    pictures = sorted((tmp_path / "out/test/tiny_val/retinanet/vis").iterdir())
    assert [p.name for p in pictures] == [f"{n}_{n:06d}.pdf" for n in range(5)]
    assert pictures[0].read_bytes().startswith(b"%PDF")
    other = [*words[:-1], 1.0, "OUTPUT_DIR", tmp_path / "none", "VIS", True]
    assert run("test_net.py", *other).code == 0
    assert not (tmp_path / "none/test/tiny_val/retinanet/vis").exists()


def test_without_competition_mode_no_file_of_results_stays(trained, config, tmp_path):
    words = ["--cfg", config, "TEST.WEIGHTS", trained.weights, "TEST.COMPETITION_MODE", False]
    assert run("test_net.py", *words).code == 0
    folder = tmp_path / "out/test/tiny_val/retinanet"
    assert {p.name for p in folder.iterdir()} == {"detections.pkl", "results.json"}


def test_results_that_are_not_as_expected_exit_4_and_are_written(trained, config, tmp_path):
    box = json.loads((trained.tested / "results.json").read_text())["tiny_val"]["box"]
    words = ["--cfg", config, "TEST.WEIGHTS", trained.weights, "EXPECTED_RESULTS"]
    done = run("test_net.py", *words, f"[['tiny_val', 'box', 'AP', {box['AP']}]]")
    assert done.code == 0 and "PASS: tiny_val > box > AP" in done.out, done.err
    far = f"[['tiny_val', 'box', 'AP50', {box['AP50'] + 0.5}], ['tiny_val', 'box', 'AP', [{box['AP']}, 0.0]]]"
    refused(run("test_net.py", *words, far), 4, "EXPECTED_RESULTS: 1 of 2", "tiny_val > box > AP50")
    assert (tmp_path / "out/test/tiny_val/retinanet/results.json").exists()


@pytest.mark.parametrize("entry", ["['tiny_train', 'box', 'AP', 0.5]", "['tiny_val', 'box', 'AP']"])
def test_expectations_that_cannot_be_met_exit_2_before_the_test(trained, config, tmp_path, entry):
    words = ["--cfg", config, "TEST.WEIGHTS", trained.weights, "EXPECTED_RESULTS", f"[{entry}]"]
    refused(run("test_net.py", *words), 2, "EXPECTED_RESULTS", entry)
    assert not (tmp_path / "out/test/tiny_val").exists()


def test_a_voc_set_is_measured_as_voc_does_beside_coco(trained, config, tmp_path):
    """The folder decides, not the name; the numbers are those of the COCO form of the same set."""
    folder = tmp_path / "kit/VOC2007"
    as_voc(trained, folder)
    entry = json.dumps({"VOC_DIR": str(folder), "SPLIT": "val"})
    words = ["--cfg", config, "TEST.WEIGHTS", trained.weights, "DATASETS.tiny_val", entry]
    done = run("test_net.py", *words)
    assert done.code == 0, done.err
    out = tmp_path / "out/test/tiny_val/retinanet"
    values = json.loads((out / "results.json").read_text())["tiny_val"]
    expected = json.loads((trained.tested / "results.json").read_text())["tiny_val"]
    assert values["box"]["AP50"] == pytest.approx(expected["box"]["AP50"], abs=1e-6)
    assert set(values["voc"]["per_class"]) == {"circle", "square", "triangle"}
    assert values["voc"]["eleven_points"] and 0 <= values["voc"]["AP50"] <= 1
    texts = {f"comp4_det_val_{name}.txt" for name in values["voc"]["per_class"]}
    assert texts | {f"{name}_pr.pkl" for name in values["voc"]["per_class"]} < {p.name for p in out.iterdir()}
    assert (out / "comp4_det_val_circle.txt").read_text().startswith("000000 ")
    assert "copypaste: Task: voc" in done.out
    before = (out / "results.json").read_bytes()
    (out / "comp4_det_val_circle.txt").unlink()
    assert run("reval.py", out).code == 0
    assert (out / "results.json").read_bytes() == before and (out / "comp4_det_val_circle.txt").exists()
    assert run("test_net.py", *words, "TEST.FORCE_JSON_DATASET_EVAL", True).code == 0
    assert "voc" not in json.loads((out / "results.json").read_text())["tiny_val"]


def as_voc(trained, folder):
    """The tiny set in PASCAL VOC's layout."""
    values = json.loads((trained.config.parent / "val/instances.json").read_text())
    names = {c["id"]: c["name"] for c in values["categories"]}
    for part in ("Annotations", "ImageSets/Main"):
        (folder / part).mkdir(parents=True)
    shutil.copytree(trained.images, folder / "JPEGImages")
    stems = []
    for image in values["images"]:
        stems.append(image["file_name"].removesuffix(".jpg"))
        boxes = [a for a in values["annotations"] if a["image_id"] == image["id"]]
        rows = [(names[a["category_id"]], pixels_from_1(a["bbox"]), 0) for a in boxes]
        write(folder / "Annotations", stems[-1], rows, size=(64, 64))
    (folder / "ImageSets/Main/val.txt").write_text("\n".join(stems))


def pixels_from_1(box):
    x, y, w, h = box
    return x + 1, y + 1, x + w, y + h
