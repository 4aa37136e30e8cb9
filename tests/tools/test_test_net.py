# SPDX-License-Identifier: Apache-2.0
"""Testing weights gives what the training's own test gave."""

import json

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
