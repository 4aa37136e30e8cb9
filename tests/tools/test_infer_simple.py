# SPDX-License-Identifier: Apache-2.0
"""Detections in images and folders that belong to no data set."""

import json
import shutil

import pytest

from tests.tools.runs import refused, run


def coco_of(trained) -> dict[str, list]:
    """[score, class name] by file, as the training's own test found them."""
    found = json.loads((trained.tested / "bbox_tiny_val_results.json").read_text())
    values = json.loads((trained.config.parent / "val/instances.json").read_text())
    files = {image["id"]: image["file_name"] for image in values["images"]}
    names = {category["id"]: category["name"] for category in values["categories"]}
    rows: dict[str, list] = {file: [] for file in files.values()}
    for one in found:
        rows[files[one["image_id"]]].append((names[one["category_id"]], one["score"]))
    return rows


def test_a_folder_gives_the_detections_of_the_test_and_pictures(trained, tmp_path):
    words = ["--wts", trained.weights, "--output-dir", tmp_path, "--always-out", trained.images]
    done = run("infer_simple.py", *words)
    assert done.code == 0 and done.err == ""
    entries = json.loads((tmp_path / "detections.json").read_text())
    expected = coco_of(trained)
    assert len(entries) == len(expected) == 5
    for entry in entries:
        name = entry["file"].rsplit("/", 1)[1]
        assert (entry["height"], entry["width"]) == (64, 64)
        assert {tuple(o["box"]) for o in entry["objects"]} and all(
            len(o["box"]) == 4 for o in entry["objects"]
        )
        found = sorted((o["class"], round(o["score"], 5)) for o in entry["objects"])
        assert found == sorted((c, round(score, 5)) for c, score in expected[name])
        assert (tmp_path / f"{name}.png").read_bytes()[:4] == b"\x89PNG"


def test_an_image_and_an_output_folder_of_a_run_as_weights(trained, tmp_path):
    image = trained.images / "000001.jpg"
    done = run("infer_simple.py", image, "--wts", trained.output, "--output-dir", tmp_path / "new/pictures")
    assert done.code == 0, done.err
    entries = json.loads((tmp_path / "new/pictures/detections.json").read_text())
    assert [entry["file"] for entry in entries] == [str(image)]


def test_nothing_above_the_threshold_gives_no_picture_and_still_the_list(trained, tmp_path):
    words = ["--wts", trained.weights, "--output-dir", tmp_path, "--thresh", "0.99", trained.images]
    done = run("infer_simple.py", *words)
    assert done.code == 0 and "0 pictures" in done.out
    assert [p.name for p in tmp_path.iterdir()] == ["detections.json"]


def test_other_keys_than_those_in_the_weights(trained, tmp_path):
    words = ["--cfg", trained.config, "--wts", trained.weights, "--output-dir", tmp_path]
    done = run("infer_simple.py", *words, "TEST.DETECTIONS_PER_IM", 1, trained.images)
    assert done.code == 0, done.err
    entries = json.loads((tmp_path / "detections.json").read_text())
    assert [len(entry["objects"]) for entry in entries] == [1] * 5


@pytest.mark.parametrize("content", [b"", b"no image"])
def test_an_image_that_cannot_be_read_exits_3_under_its_name(trained, tmp_path, content):
    images = tmp_path / "images"
    shutil.copytree(trained.images, images)
    (images / "000002.jpg").write_bytes(content)
    words = ["--wts", trained.weights, "--output-dir", tmp_path / "out", images]
    refused(run("infer_simple.py", *words), 3, images / "000002.jpg")


def test_no_image_and_no_weights_exit_3(trained, tmp_path):
    words = ["--output-dir", tmp_path / "out", "--wts"]
    (tmp_path / "empty").mkdir()
    refused(run("infer_simple.py", *words, trained.weights, tmp_path / "empty"), 3, tmp_path / "empty")
    refused(run("infer_simple.py", *words, trained.weights, tmp_path / "gone.jpg"), 3, "gone.jpg")
    refused(run("infer_simple.py", *words, tmp_path / "empty", trained.images), 3, tmp_path / "empty")


@pytest.mark.parametrize(("ending", "begins"), [("png", b"\x89PNG"), ("jpg", b"\xff\xd8"), ("pdf", b"%PDF")])
def test_pictures_are_what_their_ending_says(trained, tmp_path, ending, begins):
    words = ["--wts", trained.weights, "--output-dir", tmp_path, "--always-out", "--output-ext", ending]
    assert run("infer_simple.py", *words, trained.images).code == 0
    files = list(tmp_path.glob(f"*.{ending}"))
    assert len(files) == 5 and all(file.read_bytes().startswith(begins) for file in files)


def test_pairs_change_the_configuration_inside_the_weights(trained, tmp_path):
    words = ["--wts", trained.weights, "--output-dir", tmp_path, trained.images, "TEST.DETECTIONS_PER_IM", 1]
    done = run("infer_simple.py", *words)
    assert done.code == 0, done.err
    assert all(len(entry["objects"]) == 1 for entry in json.loads((tmp_path / "detections.json").read_text()))
