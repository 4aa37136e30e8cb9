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


def test_images_that_cannot_be_read_are_left_out_named_and_exit_3(trained, tmp_path):
    """One without a header, one whose pixels are cut off; the others are done as if these were not there."""
    images, out = tmp_path / "images", tmp_path / "out"
    shutil.copytree(trained.images, images)
    (images / "000002.jpg").write_bytes(b"no image")
    cut = images / "000004.jpg"
    cut.write_bytes(cut.read_bytes()[:700])
    words = ["--wts", trained.weights, "--output-dir", out, "--always-out", images]
    done = run("infer_simple.py", *words)
    refused(done, 3, "2 of 5 images", images / "000002.jpg", cut)
    assert f"left out: {cut}" in done.out
    entries = json.loads((out / "detections.json").read_text())
    assert [entry["file"][-10:] for entry in entries] == ["000000.jpg", "000001.jpg", "000003.jpg"]
    assert len(list(out.glob("*.png"))) == 3


@pytest.mark.parametrize("cut_at", [0, 700])
def test_one_image_that_cannot_be_read_is_the_error(trained, tmp_path, cut_at):
    image = tmp_path / "one.jpg"
    image.write_bytes((trained.images / "000000.jpg").read_bytes()[:cut_at])
    done = run("infer_simple.py", "--wts", trained.weights, "--output-dir", tmp_path / "out", image)
    refused(done, 3, f"error: {image}: ")
    assert not list((tmp_path / "out").iterdir())


def test_a_model_that_finds_no_objects_by_itself_exits_2_with_its_key(trained, tmp_path):
    words = [
        "--wts",
        trained.weights,
        "--output-dir",
        tmp_path,
        trained.images,
        "RETINANET.RETINANET_ON",
        False,
    ]
    other = ["MODEL.TYPE", "generalized_rcnn"]
    refused(run("infer_simple.py", *words, *other, "MODEL.RPN_ONLY", True), 2, "MODEL.RPN_ONLY")
    other += ["FAST_RCNN.ROI_BOX_HEAD", "fast_rcnn_heads.add_roi_2mlp_head"]
    refused(run("infer_simple.py", *words, *other), 2, "MODEL.FASTER_RCNN", "stored proposals")


def test_detectrons_threshold_of_keypoints_is_taken_and_told(trained, tmp_path):
    words = ["--wts", trained.weights, "--output-dir", tmp_path, "--kp-thresh", 2.0]
    done = run("infer_simple.py", *words, trained.images / "000000.jpg")
    assert done.code == 0 and "--kp-thresh: without effect" in done.out


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
