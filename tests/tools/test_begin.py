# SPDX-License-Identifier: Apache-2.0
"""What a training begins with: weights of other programs, other classes, other pixels; and what is said about it."""

import json
import os
import subprocess
import sys

import pytest
import torch

from detectron_libra.builders.detector import build_detector
from detectron_libra.config import load_config
from detectron_libra.engine import checkpoint
from detectron_libra.engine.weights_file import load_weights, save_safetensors
from detectron_libra.weights.detectron import read_pickle, write_pickle
from tests.tools.runs import ROOT, refused, run
from tests.weights.frameworks import FRAMEWORKS
from tests.weights.their_networks import random_state

FOLDER = "out/train/tiny_train/retinanet"
#: The tiny model with the layers that Detectron's have.
WORDS = ["RESNETS.NORM", "affine", "RETINANET.HEAD_NORM", "none", "LIBRA.PYRAMID.ON", "False"]
SHORT = ["SOLVER.MAX_ITER", 2, "--skip-test"]


@pytest.fixture(scope="module")
def coco_file(trained, tmp_path_factory):
    """A .pkl of Detectron, of 80 classes and with momentum."""
    cfg = load_config(trained.config, [*WORDS, "MODEL.NUM_CLASSES", "81"])
    torch.manual_seed(2)
    state = build_detector(cfg, 81).state_dict()
    file = tmp_path_factory.mktemp("coco") / "model_final.pkl"
    momentum = {"neck.output.3.weight": torch.zeros_like(state["neck.output.3.weight"])}
    write_pickle(file, state=state, config_text="MODEL: {NUM_CLASSES: 81}\n", momentum=momentum)
    return file


def train(config, *words):
    done = run("train_net.py", "--cfg", config, *words)
    assert done.code == 0, done.err
    return done.out


def told(out: str, *parts: str) -> list[str]:
    return [line for line in out.splitlines() if all(part in line for part in parts)]


def test_fine_tuning_from_detectron_s_weights_of_other_classes(coco_file, config, tmp_path):
    """One warning lists what begins afresh, momentum is not taken, the geometry that was set stays."""
    out = train(config, *WORDS, "TRAIN.WEIGHTS", coco_file, "SOLVER.BASE_LR", "1e-12", *SHORT)
    (line,) = told(out, "another number of classes")
    assert "head.cls_pred.weight, head.cls_pred.bias" in line and line.startswith("WARNING")
    assert told(out, "momentum is not used") and told(out, f"weights to begin with: {coco_file} (detectron)")
    (line,) = told(out, "WARNING", "MODEL.BOX_GEOMETRY")
    assert "'detectron'" in line and "'continuous'" in line
    before, (after, _) = (
        read_pickle(coco_file).state,
        load_weights(tmp_path / FOLDER / "model_final.safetensors"),
    )
    name = "neck.output.4.weight"
    torch.testing.assert_close(after[name], before[name])
    assert after["head.cls_pred.weight"].shape[0] == 27


def test_what_weights_need_goes_with_the_run_its_checkpoints_and_its_weights(trained, config, tmp_path):
    """Keys that nobody has set are set; resuming takes them for no change; the result is tested with them."""
    state, _ = load_weights(trained.weights)
    first = tmp_path / "first.safetensors"
    settings = {"PIXEL_ORDER": "RGB", "PIXEL_STDS": [58.0, 57.0, 57.0]}
    save_safetensors(first, state, {"format": "detectron_libra", "settings": json.dumps(settings)})
    words = ["TRAIN.WEIGHTS", first, "SOLVER.MAX_ITER", 2]
    out = train(config, *words)
    assert told(out, "INFO", f"{first} needs, so it is set: PIXEL_ORDER 'RGB', PIXEL_STDS")
    folder = tmp_path / FOLDER
    assert "PIXEL_ORDER: RGB" in (folder / "config.yaml").read_text()
    assert checkpoint.load(folder / "model_iter1.pt")["settings"]["PIXEL_ORDER"] == "RGB"

    first.unlink()  # a resumed run never opens it
    out = train(config, *words[:3], 3)
    assert told(out, "model_iter1.pt needs, so it is set: PIXEL_ORDER 'RGB'")
    weights = folder / "model_final.safetensors"
    assert json.loads(load_weights(weights)[1]["settings"])["PIXEL_ORDER"] == "RGB"

    expected = (tmp_path / "out/test/tiny_val/retinanet/results.json").read_bytes()
    (tmp_path / "out/test/tiny_val/retinanet/results.json").unlink()
    done = run("test_net.py", "--cfg", config, "TEST.WEIGHTS", weights)
    assert done.code == 0 and told(done.out, f"{weights} needs, so it is set: PIXEL_ORDER 'RGB'")
    assert (tmp_path / "out/test/tiny_val/retinanet/results.json").read_bytes() == expected


def test_weights_are_copied_where_that_is_asked_for(trained, config, tmp_path):
    """Under their own name; one that the run itself writes would be taken for its result."""
    own = tmp_path / "R-50.safetensors"
    own.write_bytes(trained.weights.read_bytes())
    for file, name in ((own, own.name), (trained.weights, "initial_model_final.safetensors")):
        train(config, "--no-resume", "TRAIN.COPY_WEIGHTS", "True", "TRAIN.WEIGHTS", file, *SHORT)
        assert (tmp_path / FOLDER / name).read_bytes() == trained.weights.read_bytes()
    train(
        config, "TRAIN.COPY_WEIGHTS", "True", "TRAIN.WEIGHTS", trained.weights, *SHORT
    )  # complete: nothing to do


@pytest.mark.parametrize("weights", ["gone.pkl", "http://127.0.0.1:9/R-50.pkl"])
def test_weights_that_are_not_there_exit_3_before_any_data_is_read(config, tmp_path, weights):
    cache = ["DOWNLOAD_CACHE", tmp_path / "cache"]
    words = ["TRAIN.WEIGHTS", weights, "TRAIN.DATASETS", "('absent',)"]
    refused(run("train_net.py", "--cfg", config, *words, *cache), 3, "TRAIN.WEIGHTS", weights)
    refused(run("test_net.py", "--cfg", config, "TEST.WEIGHTS", weights, *cache), 3, "TEST.WEIGHTS", weights)
    words = ["--wts", weights, tmp_path, *cache]
    refused(run("infer_simple.py", *words), 3, weights)


def test_a_configuration_of_ours_without_a_network_is_refused_in_one_line(tmp_path):
    """Those of COCO begin with weights at an address; the line names where a copy of them goes."""
    command = [
        sys.executable,
        "tools/train_net.py",
        "--cfg",
        "configs/libra/libra_retinanet_R-50-FPN_1x.yaml",
    ]
    command += ["OUTPUT_DIR", str(tmp_path / "out"), "DOWNLOAD_CACHE", str(tmp_path / "cache")]
    nowhere = "http://127.0.0.1:9"  # instead of a machine without a network
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "https_proxy": nowhere, "HTTPS_PROXY": nowhere, "no_proxy": "", "NO_PROXY": ""},
    )
    (line,) = done.stderr.strip().splitlines()
    assert done.returncode == 3
    for part in (
        "TRAIN.WEIGHTS: https://",
        "no network",
        str(tmp_path / "cache/ImageNetPretrained/MSRA/R-50.pkl"),
    ):
        assert part in line


def test_weights_without_class_names_take_those_of_the_data_at_hand(trained, config, tmp_path):
    """Detectron's files name no classes; where no data set fits, classes are called by number, and a line says so."""
    state, texts = load_weights(trained.weights)
    bare = tmp_path / "bare.safetensors"
    save_safetensors(bare, state, {"format": "detectron_libra"})
    words = ["--cfg", config, "--wts", bare, "--output-dir", tmp_path / "pictures", trained.images]
    for more, names, line in (
        ([], {"circle", "square", "triangle"}, "taken from data set tiny_val"),
        (
            ["TEST.DATASETS", "()", "TRAIN.DATASETS", "()"],
            {"class 1", "class 2", "class 3"},
            "called by number",
        ),
    ):
        done = run("infer_simple.py", *words, *more)
        assert done.code == 0 and len(told(done.out, line)) == 1, (done.out, done.err)
        entries = json.loads((tmp_path / "pictures/detections.json").read_text())
        assert {o["class"] for entry in entries for o in entry["objects"]} <= names


@pytest.mark.parametrize("name", ["mmdetection", "torchvision", "detectron2"])
def test_a_detector_of_another_framework_needs_no_configuration(trained, tmp_path, name):
    """Its network and its pixels are recognised; converted, it gives the same detections."""
    theirs = tmp_path / "theirs.pth"
    state = random_state(FRAMEWORKS[name], dense=True)
    place = {"mmdetection": "state_dict", "detectron2": "model"}
    torch.save({place[name]: state} if name in place else state, theirs)
    ours = tmp_path / "ours.safetensors"
    done = run("convert_weights.py", theirs, ours)
    assert done.code == 0 and told(done.out, f"{theirs}: {name}", "these weights need", "PIXEL_"), done.err
    found = []
    small = ["TEST.SCALE", 64, "TEST.MAX_SIZE", 64, "RETINANET.INFERENCE_TH", 0.0]
    for file in (theirs, ours):
        folder = tmp_path / file.stem
        done = run("infer_simple.py", "--wts", file, "--output-dir", folder, trained.images, *small)
        assert done.code == 0, done.err
        found.append((folder / "detections.json").read_bytes())
    assert found[0] == found[1] and b"class 1" in found[0]
