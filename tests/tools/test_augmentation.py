# SPDX-License-Identifier: Apache-2.0
"""Test-time augmentation, soft-NMS and voting as a user switches them on."""

import json

import pytest
import torch

import detectron_libra
from tests.tools.runs import refused, run

AUG = ("TEST.BBOX_AUG.ENABLED", True, "TEST.BBOX_AUG.H_FLIP", True)
MORE = (*AUG, "TEST.BBOX_AUG.SCALES", "(96,)", "TEST.BBOX_AUG.ASPECT_RATIOS", "(0.5,)")


@pytest.fixture
def cpu_settings():
    """Those of this process, which loading a detector changes."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)


def found_by(config, folder, *words) -> dict[int, list]:
    """Rows of score, class and box by image id, best first, as test_net.py wrote them with these options."""
    done = run("test_net.py", "--cfg", config, *words, "OUTPUT_DIR", folder)
    assert done.code == 0 and done.err == "", done.err
    tested = folder / "test/tiny_val/retinanet"
    assert json.loads((tested / "results.json").read_text())["tiny_val"]["box"]["AP"] is not None
    rows: dict[int, list] = {}
    for one in json.loads((tested / "bbox_tiny_val_results.json").read_text()):
        rows.setdefault(one["image_id"], []).append((one["score"], one["category_id"], *one["bbox"]))
    return {image: sorted(found, reverse=True) for image, found in rows.items()}


def test_views_add_what_they_find_to_the_plain_test(trained, config, tmp_path):
    """The union before suppression: with no suppression the detections of fewer views are among those of more."""
    every = ("TEST.WEIGHTS", trained.weights, "TEST.NMS", 1.0, "TEST.DETECTIONS_PER_IM", 0)
    plain = found_by(config, tmp_path / "plain", *every)
    mirrored = found_by(config, tmp_path / "mirrored", *every, *AUG)
    more = found_by(config, tmp_path / "more", *every, *MORE)
    assert set(plain) == set(mirrored) == set(more) and len(plain) == 5
    for image in plain:
        assert set(plain[image]) < set(mirrored[image]) < set(more[image])


def test_nothing_but_the_identity_is_the_plain_test(trained, config, tmp_path):
    words = ("TEST.WEIGHTS", trained.weights)
    plain = found_by(config, tmp_path / "plain", *words)
    assert plain == found_by(config, tmp_path / "same", *words, "TEST.BBOX_AUG.ENABLED", True)
    assert plain == found_by(config, tmp_path / "off", *words, "TEST.BBOX_AUG.SCALES", "(96,)")


def test_soft_nms_and_voting_change_what_is_reported(trained, config, tmp_path):
    words = ("TEST.WEIGHTS", trained.weights, "TEST.DETECTIONS_PER_IM", 0)
    plain = found_by(config, tmp_path / "plain", *words)
    soft = found_by(config, tmp_path / "soft", *words, "TEST.SOFT_NMS.ENABLED", True)
    voted = found_by(config, tmp_path / "voted", *words, "TEST.BBOX_VOTE.ENABLED", True)
    for image in plain:
        assert len(soft[image]) > len(plain[image])
        # ID: a vote moves boxes and leaves scores
        assert [row[:2] for row in voted[image]] == [row[:2] for row in plain[image]]
    assert voted != plain


def test_pictures_and_python_see_the_same_views(trained, tmp_path, cpu_settings):
    words = ["--wts", trained.weights, "--output-dir", tmp_path, trained.images, *map(str, MORE)]
    done = run("infer_simple.py", *words)
    assert done.code == 0 and done.err == "", done.err
    entries = json.loads((tmp_path / "detections.json").read_text())
    predictor = detectron_libra.load(trained.weights, opts=list(map(str, MORE)))
    plain = detectron_libra.load(trained.weights)
    for entry in entries:
        (found,) = predictor.predict(entry["file"])
        assert found.scores.tolist() == [one["score"] for one in entry["objects"]]
        assert found.boxes.tolist() == [one["box"] for one in entry["objects"]]
        assert found.scores.tolist() != plain.predict(entry["file"])[0].scores.tolist()


def test_means_without_stored_proposals_exit_2_with_both_keys(trained, config):
    words = ("TEST.BBOX_AUG.SCORE_HEUR", "AVG", "TEST.BBOX_AUG.COORD_HEUR", "AVG")
    done = run("test_net.py", "--cfg", config, "TEST.WEIGHTS", trained.weights, *AUG, *words)
    refused(done, 2, "TEST.BBOX_AUG.SCORE_HEUR", "TEST.BBOX_AUG.COORD_HEUR", "UNION")
