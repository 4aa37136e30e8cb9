# SPDX-License-Identifier: Apache-2.0
"""Stored detections give the results of the test that made them, and pictures; other ones are refused by name."""

import json
import pickle
import shutil

import numpy as np
import pytest

from tests.tools.runs import refused, run


@pytest.fixture
def stored(trained, tmp_path):
    """A folder with nothing but the detections of the training's test."""
    folder = tmp_path / "test/tiny_val/retinanet"
    folder.mkdir(parents=True)
    shutil.copy(trained.tested / "detections.pkl", folder)
    return folder


def change(file, **values):
    """The same detections with other entries, as Detectron would have pickled them."""
    content = pickle.loads(file.read_bytes())  # our own
    content.update(values)
    file.write_bytes(pickle.dumps(content, protocol=2))


def test_the_results_are_those_of_the_test(trained, stored):
    done = run("reval.py", stored)
    assert done.code == 0 and done.err == "", done.err
    for name in ("results.json", "bbox_tiny_val_results.json"):
        assert (stored / name).read_bytes() == (trained.tested / name).read_bytes(), name
    assert "copypaste: AP,AP50,AP75,APs,APm,APl" in done.out and "tiny_val: AP " in done.out
    assert (stored / "detections.pkl").read_bytes() == (trained.tested / "detections.pkl").read_bytes()


def test_a_file_of_detectron_with_float64_and_empty_lists(trained, stored):
    content = pickle.loads((stored / "detections.pkl").read_bytes())
    boxes = [
        [np.asarray(rows, np.float64) if len(rows) else [] for rows in images]
        for images in content["all_boxes"]
    ]
    change(stored / "detections.pkl", all_boxes=boxes)
    assert run("reval.py", stored).code == 0
    assert (stored / "results.json").read_bytes() == (trained.tested / "results.json").read_bytes()


def test_a_configuration_in_detectrons_form_of_a_model_with_masks(trained, stored, tmp_path):
    """The tags that PyYAML gives to Detectron's configuration, and the sets of a file of ours on the command line."""
    attributes = "!!python/object/new:detectron.utils.collections.AttrDict"
    state = "  state: {__immutable__: false}\n"
    text = (
        f"{attributes}\ndictitems:\n  MODEL: {attributes}\n"
        "    dictitems: {MASK_ON: true, NUM_CLASSES: 4, TYPE: generalized_rcnn}\n"
        "    state: {__immutable__: false}\n"
        f"  TEST: {attributes}\n    dictitems:\n      DATASETS: !!python/tuple [tiny_val]\n"
        "    state: {__immutable__: false}\n"
        f"{state.lstrip()}"
    )
    change(stored / "detections.pkl", cfg=text)
    annotations = trained.config.parent / "val/instances.json"
    declared = {"tiny_val": {"IM_DIR": "no images needed", "ANN_FN": str(annotations)}}
    opts = ["DATASETS", json.dumps(declared), "MODEL.BOX_GEOMETRY", "continuous"]
    done = run("reval.py", stored, *opts)
    assert done.code == 0, done.err
    assert (stored / "results.json").read_bytes() == (trained.tested / "results.json").read_bytes()
    change(stored / "detections.pkl", cfg="!!python/object/apply:os.system [true]")
    refused(run("reval.py", stored, *opts), 3, "detections.pkl", "cfg")
    change(stored / "detections.pkl", cfg=3)
    refused(run("reval.py", stored, *opts), 3, "detections.pkl", "--cfg")


def test_options_change_the_configuration_inside(trained, stored):
    done = run("reval.py", stored, "--dataset", "tiny_val", "TEST.CONCEPT_THRESH", 0.25)
    assert done.code == 0, done.err
    assert json.loads((stored / "results.json").read_text())["tiny_val"]["concept"]["threshold"] == 0.25


def test_without_competition_mode_no_file_of_results_stays(stored):
    assert run("reval.py", stored, "TEST.COMPETITION_MODE", False).code == 0
    assert sorted(p.name for p in stored.iterdir()) == ["detections.pkl", "results.json"]
    assert run("reval.py", stored, "TEST.COMPETITION_MODE", False, "--comp").code == 0
    kept = stored / "bbox_tiny_val_results.json"
    kept.write_text("of the competition")
    assert run("reval.py", stored, "TEST.COMPETITION_MODE", False).code == 0
    assert kept.read_text() == "of the competition"  # its own file has another name
    assert len(list(stored.glob("bbox_*"))) == 1


def test_detections_of_another_set_exit_3_with_both_numbers(trained, stored):
    refused(run("reval.py", stored, "--dataset", "tiny_train"), 3, "detections.pkl", "5 images", "9")
    content = pickle.loads((stored / "detections.pkl").read_bytes())
    change(stored / "detections.pkl", all_boxes=content["all_boxes"][:-1])
    refused(run("reval.py", stored), 3, "detections.pkl", "2 classes", "3")


def test_files_that_are_none_exit_3_and_their_folders_too(stored, tmp_path):
    refused(run("reval.py", tmp_path), 3, tmp_path / "detections.pkl")
    change(stored / "detections.pkl", all_boxes={"a": 1})
    refused(run("reval.py", stored), 3, "detections.pkl", "all_boxes")
    (stored / "detections.pkl").write_bytes(pickle.dumps(print))
    refused(run("reval.py", stored), 3, "detections.pkl")


def test_matlab_and_a_set_that_is_not_known_exit_2(stored):
    refused(run("reval.py", stored, "--matlab"), 2, "MATLAB", "comp4_det")
    refused(run("reval.py", stored, "--dataset", "tiny_vla"), 2, "tiny_vla", "tiny_val")


def test_pictures_of_every_image_with_a_box_of_the_threshold(trained, stored, tmp_path):
    scores = {0: 0.95, 3: 0.5}
    content = pickle.loads((stored / "detections.pkl").read_bytes())
    empty = [[np.zeros((0, 5), np.float32)] * 5 for _ in content["all_boxes"]]
    empty[2] = [np.array([[5, 5, 30, 30, scores.get(n, 0.1)]], np.float32) for n in range(5)]
    change(stored / "detections.pkl", all_boxes=empty)
    words = ["--detections", stored / "detections.pkl", "--output-dir", tmp_path / "drawn"]
    assert run("visualize_results.py", *words).code == 0
    assert [p.name for p in (tmp_path / "drawn/vis").iterdir()] == ["0_000000.pdf"]
    more = ["--thresh", 0.5, "--output-ext", "png"]
    assert run("visualize_results.py", *words, *more).code == 0
    pictures = sorted((tmp_path / "drawn/vis").glob("*.png"))
    assert [p.name for p in pictures] == ["0_000000.png", "3_000003.png"]
    assert pictures[0].read_bytes().startswith(b"\x89PNG")
    words[-1] = tmp_path / "two"
    assert run("visualize_results.py", *words, *more, "--first", 3).code == 0
    assert [p.name for p in (tmp_path / "two/vis").iterdir()] == ["0_000000.png"]


def test_detections_to_draw_have_to_be_named(stored):
    refused(run("visualize_results.py", "--dataset", "tiny_val"), 2, "--detections")
    words = ["--detections", stored / "detections.pkl", "--first", -1]
    refused(run("visualize_results.py", *words), 2, "--first")
