# SPDX-License-Identifier: Apache-2.0
"""What a user finds after training: files, numbers and texts."""

import json
import math

import pytest
from safetensors import safe_open

from detectron_libra.config import load_config
from tests.tools import runs

BOX = {"AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl", "per_class"}
RATES = {"precision", "recall", "f1", "macro", "threshold", "best_threshold", "best_f1", "per_class"}
CLASSES = ["circle", "square", "triangle"]


def test_a_run_writes_the_files_of_the_contract_and_nothing_else(trained):
    assert trained.done.code == 0 and trained.done.err == ""
    files = {str(p.relative_to(trained.output)) for p in trained.output.rglob("*") if p.is_file()}
    train, test = "train/tiny_train/retinanet", "test/tiny_val/retinanet"
    assert files == {
        f"{train}/.lock",
        f"{train}/model_iter3.pt",
        f"{train}/model_iter7.pt",
        f"{train}/model_final.safetensors",
        f"{train}/config.yaml",
        f"{train}/metrics.jsonl",
        f"{train}/log.txt",
        f"{train}/report.html",
        f"{test}/detections.pkl",
        f"{test}/bbox_tiny_val_results.json",
        f"{test}/results.json",
    }


def test_results_json_has_exactly_the_keys_of_the_contract(trained):
    results = json.loads((trained.tested / "results.json").read_text())
    assert set(results) == {"tiny_val"}
    tasks = results["tiny_val"]
    assert set(tasks) == {"box", "concept", "boxes_at_threshold"}
    assert set(tasks["box"]) == BOX
    assert set(tasks["concept"]) == RATES | {"mAP"}
    assert set(tasks["boxes_at_threshold"]) == RATES | {"iou"}
    for name in ("concept", "boxes_at_threshold"):
        assert set(tasks[name]["macro"]) == {"precision", "recall", "f1"}
        assert list(tasks[name]["per_class"]) == CLASSES
    assert list(tasks["box"]["per_class"]) == CLASSES
    # shapes of 64 pixels are small: what cannot be computed is null, the rest a fraction
    assert tasks["box"]["APl"] is None
    assert all(v is None or 0 <= v <= 1 for k, v in tasks["box"].items() if k != "per_class")


def test_metrics_hold_raw_and_weighted_losses_of_every_reported_iteration(trained):
    lines = [json.loads(line) for line in (trained.folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["iter"] for line in lines] == list(range(8))
    first = lines[0]  # later lines hold medians, which do not add up
    assert {"lr", "images_per_s", "data_time", "time", "eta", "mem", "grad_norm"} <= set(first)
    assert first["loss_bbox"] == pytest.approx(0.5 * first["raw_loss_bbox"], rel=1e-6)
    assert first["loss_cls"] == pytest.approx(first["raw_loss_cls"], rel=1e-6)
    assert first["loss"] == pytest.approx(first["loss_cls"] + first["loss_bbox"], rel=1e-6)
    assert all(math.isfinite(line["loss"]) for line in lines)


def test_log_and_screen_have_the_same_lines_with_json_stats(trained):
    text = (trained.folder / "log.txt").read_text()
    assert text.count("json_stats: {") == 8
    assert "Traceback" not in text
    assert set(text.splitlines()) <= set(trained.done.out.splitlines())


def test_the_kept_configuration_is_whole_and_loads_to_what_was_trained(trained):
    kept = load_config(str(trained.folder / "config.yaml"), [])
    assert kept.MODEL.NUM_CLASSES == 4 and kept.SOLVER.MAX_ITER == 8
    with safe_open(str(trained.weights), framework="pt") as file:
        told = file.metadata()
    assert json.loads(told["class_names"]) == CLASSES
    assert told["iteration"] == "7" and told["config"] == (trained.folder / "config.yaml").read_text()


@pytest.mark.parametrize("before", [True, False])
def test_flags_stand_before_and_after_the_pairs(config, tmp_path, before):
    flags, pairs = ["--skip-test", "--cfg", config], ["SOLVER.MAX_ITER", 2, "TRAIN.SCALES", "(48, 64)"]
    done = runs.run("train_net.py", *([*flags, *pairs] if before else [*pairs, *flags]))
    assert done.code == 0, done.err
    assert (tmp_path / "out/train/tiny_train/retinanet/model_iter1.pt").exists()
    assert not (tmp_path / "out/test").exists()


def test_faster_rcnn_with_every_part_of_libra_trains_and_is_tested(config, tmp_path):
    pairs = {
        "MODEL.TYPE": "generalized_rcnn",
        "MODEL.FASTER_RCNN": True,
        "RETINANET.RETINANET_ON": False,
        "FPN.MULTILEVEL_ROIS": True,
        "FPN.RPN_MIN_LEVEL": 2,
        "FPN.RPN_ANCHOR_START_SIZE": 8,
        "FPN.ROI_MAX_LEVEL": 5,
        "FAST_RCNN.MLP_HEAD_DIM": 16,
        "FAST_RCNN.ROI_XFORM_METHOD": "RoIAlign",
        "FAST_RCNN.ROI_BOX_HEAD": "fast_rcnn_heads.add_roi_2mlp_head",
        "TRAIN.RPN_PRE_NMS_TOP_N": 50,
        "TRAIN.RPN_POST_NMS_TOP_N": 50,
        "TEST.RPN_PRE_NMS_TOP_N": 50,
        "TEST.RPN_POST_NMS_TOP_N": 20,
        "LIBRA.IOU_SAMPLING.ON": True,
        "LIBRA.INSTANCE_SAMPLING.ON": True,
        "SOLVER.MAX_ITER": 3,
    }
    words = [str(word) for pair in pairs.items() for word in pair]
    done = runs.run("train_net.py", "--cfg", config, *words)
    assert done.code == 0 and done.err == ""
    assert (tmp_path / "out/test/tiny_val/generalized_rcnn/results.json").exists()
    first = runs.losses(tmp_path / "out/train/tiny_train/generalized_rcnn")[0]
    assert {f"raw_loss_{part}" for part in ("cls", "bbox", "rpn_cls", "rpn_bbox")} <= set(first)


def test_weights_of_other_classes_are_a_start_and_the_fresh_layers_are_named(trained, config, tmp_path):
    two = '{"SHAPES": {"IMAGES": 4, "SIZE": [64, 64], "CLASSES": ["ring", "cross"]}, "DIR": "%s"}'
    pairs = [
        "TRAIN.WEIGHTS",
        trained.weights,
        "SOLVER.MAX_ITER",
        1,
        "DATASETS.tiny_train",
        two % (tmp_path / "two"),
    ]
    done = runs.run("train_net.py", "--cfg", config, "--skip-test", *pairs)
    assert done.code == 0, done.err
    warned = [line for line in done.out.splitlines() if line.startswith("WARNING") and "start afresh" in line]
    assert len(warned) == 1 and "cls_pred" in warned[0] and "bbox_pred" not in warned[0]
    with safe_open(str(trained.weights), framework="pt") as file:
        names = {name for name in file.keys() if name in warned[0]}  # noqa: SIM118
    assert len(names) == 2 and all("cls_pred" in name for name in names)
