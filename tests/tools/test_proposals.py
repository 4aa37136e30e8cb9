# SPDX-License-Identifier: Apache-2.0
"""Proposals of one model feed another: RPN only is trained and tested, Fast R-CNN learns and tests on its file."""

import json

import numpy as np
import pytest
import yaml

from detectron_libra.weights.unpickle import load_pickle
from tests.tools.runs import refused, run, write_config

RPN = [
    *("MODEL.TYPE", "rpn", "RETINANET.RETINANET_ON", "False", "MODEL.RPN_ONLY", "True"),
    *("FPN.RPN_MAX_LEVEL", "6", "FPN.RPN_MIN_LEVEL", "2", "FPN.RPN_ANCHOR_START_SIZE", "8"),
    *("TRAIN.RPN_STRADDLE_THRESH", "-1", "LIBRA.BALANCED_L1.ON", "False"),
    *("TEST.RPN_POST_NMS_TOP_N", "1000", "TEST.RPN_NMS_THRESH", "0.9"),
]
FAST = [
    *("MODEL.TYPE", "generalized_rcnn", "RETINANET.RETINANET_ON", "False", "FPN.MULTILEVEL_RPN", "False"),
    *("FPN.MULTILEVEL_ROIS", "True", "FAST_RCNN.ROI_BOX_HEAD", "fast_rcnn_heads.add_roi_2mlp_head"),
    *("FAST_RCNN.ROI_XFORM_METHOD", "RoIAlign", "FAST_RCNN.ROI_XFORM_RESOLUTION", "3"),
    *("FAST_RCNN.MLP_HEAD_DIM", "16", "TEST.SCORE_THRESH", "0.0"),
]


@pytest.fixture(scope="module")
def proposed(tmp_path_factory):
    """A network of proposals, trained on the training set and tested on both."""
    folder = tmp_path_factory.mktemp("proposed")
    config = write_config(folder)
    both = ["TEST.DATASETS", "('tiny_train','tiny_val')"]
    done = run("train_net.py", "--cfg", config, *RPN, *both, "TRAIN.EVAL_PERIOD", "4")
    assert done.code == 0, done.err
    return folder, config, done


def place(folder, dataset):
    return folder / f"out/test/{dataset}/rpn"


def test_a_test_of_proposals_alone_writes_detectrons_file(proposed):
    folder, _, done = proposed
    content = load_pickle(place(folder, "tiny_val") / "rpn_proposals.pkl")
    assert sorted(content) == ["boxes", "cfg", "ids", "scores"] and len(content["ids"]) == 5
    assert content["ids"] == sorted(content["ids"]) and yaml.safe_load(content["cfg"])["MODEL"]["RPN_ONLY"]
    for boxes, scores in zip(content["boxes"], content["scores"], strict=True):
        assert (
            boxes.dtype == scores.dtype == np.float32
            and boxes.shape == (len(scores), 4)
            and len(boxes) <= 1000
        )
        assert (np.diff(scores) <= 0).all() and (boxes >= 0).all() and (boxes <= 64).all()
    assert not (place(folder, "tiny_val") / "detections.pkl").exists()
    assert "copypaste: Task: box_proposal" in done.out + done.err


def test_the_report_of_the_run_shows_recall_and_says_what_proposals_lack(proposed):
    folder, _, _ = proposed
    page = (folder / "out/train/tiny_train/rpn/report.html").read_text(encoding="utf-8")
    assert (
        page.count("Proposals have no classes") == 2 and "tiny_val: AR@1000, AR@100 over iterations" in page
    )


def test_recall_is_measured_and_finds_its_way_into_the_metrics(proposed):
    folder, _, _ = proposed
    results = json.loads((place(folder, "tiny_train") / "results.json").read_text())
    found = results["tiny_train"]["box_proposal"]
    assert 0 < found["AR@100"] <= found["AR@1000"] <= 1
    log = (folder / "out/train/tiny_train/rpn/metrics.jsonl").read_text().splitlines()
    assert any("box_proposal" in line for line in log)


def test_fast_rcnn_trains_and_tests_on_the_stored_proposals(proposed, tmp_path):
    folder, config, _ = proposed
    files = {name: place(folder, name) / "rpn_proposals.pkl" for name in ("tiny_train", "tiny_val")}
    stored = [
        "TRAIN.PROPOSAL_FILES",
        f"('{files['tiny_train']}',)",
        "TEST.PROPOSAL_FILES",
        f"('{files['tiny_val']}',)",
    ]
    words = ["--cfg", config, *FAST, *stored, "OUTPUT_DIR", tmp_path / "out"]
    done = run("train_net.py", *words)
    assert done.code == 0, done.err
    tested = tmp_path / "out/test/tiny_val/generalized_rcnn"
    assert json.loads((tested / "results.json").read_text())["tiny_val"]["box"]["AP"] is not None
    weights = tmp_path / "out/train/tiny_train/generalized_rcnn/model_final.safetensors"
    alone = (tested / "detections.pkl").read_bytes()
    more = ["TEST.WEIGHTS", weights, "NUM_GPUS", "2"]
    again = run("test_net.py", "--multi-gpu-testing", *words, *more)
    assert again.code == 0, again.err
    one, two = (load_pickle_bytes(tmp_path, raw) for raw in (alone, (tested / "detections.pkl").read_bytes()))
    for a, b in zip(one[1:], two[1:], strict=True):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x, y)

    mirrored = ["TEST.BBOX_AUG.ENABLED", "True", "TEST.BBOX_AUG.H_FLIP", "True"]
    mean = ["TEST.BBOX_AUG.SCORE_HEUR", "AVG", "TEST.BBOX_AUG.COORD_HEUR", "AVG"]
    done = run("test_net.py", *words, "TEST.WEIGHTS", weights, *mirrored, *mean)
    assert done.code == 0, done.err
    assert load_pickle(tested / "detections.pkl")["all_boxes"][1][0].tolist() != one[1][0].tolist()


def load_pickle_bytes(folder, raw):
    file = folder / "read.pkl"
    file.write_bytes(raw)
    return load_pickle(file)["all_boxes"]


def test_missing_and_damaged_files_of_proposals_are_one_line(proposed, tmp_path):
    folder, config, _ = proposed
    words = ["--cfg", config, *FAST, "OUTPUT_DIR", tmp_path / "out"]
    refused(run("train_net.py", *words), 2, "TRAIN.PROPOSAL_FILES", "MODEL.RPN_ONLY True")
    gone = ["TRAIN.PROPOSAL_FILES", f"('{tmp_path / 'gone.pkl'}',)", "--skip-test"]
    refused(run("train_net.py", *words, *gone), 3, "TRAIN.PROPOSAL_FILES", "gone.pkl: no such file")
    bad = tmp_path / "bad.pkl"
    bad.write_bytes(b"\x80\x02cos\nsystem\nq\x00.")
    refused(run("train_net.py", *words, "TRAIN.PROPOSAL_FILES", f"('{bad}',)", "--skip-test"), 3, "bad.pkl")
    other = place(folder, "tiny_val") / "rpn_proposals.pkl"
    done = run("train_net.py", *words, "TRAIN.PROPOSAL_FILES", f"('{other}',)", "--skip-test")
    refused(done, 3, "no proposals of image", "tiny_train")
