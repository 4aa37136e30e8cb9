# SPDX-License-Identifier: Apache-2.0
"""Weights from format to format as processes: nothing is lost that the target can hold, and the rest is said."""

import json

import numpy as np
import pytest
import torch
import yaml

from detectron_libra.builders.detector import build_detector
from detectron_libra.config import load_config
from detectron_libra.engine import checkpoint
from detectron_libra.engine.weights_file import load_weights
from detectron_libra.weights.detectron import read_pickle, write_pickle
from tests.tools.runs import refused, run
from tests.weights.server import Answer, serving

TOOL = "convert_weights.py"
#: What makes the tiny model one that Detectron could have trained.
AS_DETECTRON = {
    "RESNETS.NORM": "affine",
    "MODEL.BOX_GEOMETRY": "detectron",
    "RETINANET.HEAD_NORM": "none",
    "LIBRA.PYRAMID.ON": "False",
    "LIBRA.BALANCED_L1.ON": "False",
}
WORDS = [word for pair in AS_DETECTRON.items() for word in pair]


@pytest.fixture(scope="module")
def detectron_file(trained, tmp_path_factory):
    """A .pkl of Detectron: a RetinaNet of three classes, its momentum, and a blob that no model has."""
    cfg = load_config(trained.config, [*WORDS, "MODEL.NUM_CLASSES", "4"])
    torch.manual_seed(1)
    model = build_detector(cfg, 4)
    momentum = {name: torch.rand_like(p) for name, p in model.named_parameters() if p.requires_grad}
    file = tmp_path_factory.mktemp("detectron") / "model_iter4.pkl"
    values = {"MODEL": {"NUM_CLASSES": 4, "BBOX_REG_WEIGHTS": [10.0, 10.0, 5.0, 5.0]}}
    write_pickle(
        file,
        state=model.state_dict(),
        config_text=yaml.safe_dump(values),
        momentum=momentum,
        preserved={"fc1000_w": np.ones((2, 3), np.float32)},
    )
    return file


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def converted(*words) -> str:
    """Runs the tool; its report, the last line."""
    done = run(TOOL, *words)
    assert done.code == 0 and done.err == "", done.err
    return done.out.strip().splitlines()[-1]


def test_detectron_to_ours_and_back_loses_nothing_that_a_model_has(detectron_file, config, tmp_path):
    there, back = tmp_path / "w.safetensors", tmp_path / "w.pkl"
    line = converted(detectron_file, there, "--cfg", config, *WORDS)
    for part in (
        str(detectron_file),
        "detectron",
        "3 classes",
        str(there),
        "left out: the momentum",
        "fc1000_w",
    ):
        assert part in line, line
    before = read_pickle(detectron_file)
    assert same(load_weights(there)[0], before.state)
    line = converted(there, back)
    assert "its configuration" in line
    after = read_pickle(back)
    assert same(after.state, before.state) and not after.momentum and not after.preserved
    assert yaml.safe_load(after.metadata["config"])["MODEL"]["BBOX_REG_WEIGHTS"] == [10, 10, 5, 5]


def test_detectron_to_detectron_keeps_momentum_and_what_no_model_has(detectron_file, tmp_path):
    line = converted(detectron_file, tmp_path / "w.pkl")
    assert "momentum of" in line and "preserved: 1 blobs" in line and "left out" not in line
    before, after = read_pickle(detectron_file), read_pickle(tmp_path / "w.pkl")
    assert same(after.state, before.state) and same(after.momentum, before.momentum)
    np.testing.assert_array_equal(after.preserved["fc1000_w"], before.preserved["fc1000_w"])


def test_the_same_numbers_are_measured_on_every_format(detectron_file, config, tmp_path):
    """A .pkl of Detectron is tested as it is, and converted, with the same result to the last bit."""
    ours = tmp_path / "w.safetensors"
    converted(detectron_file, ours, "--cfg", config, *WORDS)
    results = []
    for weights in (detectron_file, ours):
        words = ["--cfg", config, "TEST.WEIGHTS", weights, "OUTPUT_DIR", tmp_path / weights.suffix[1:]]
        done = run("test_net.py", *words, *WORDS)
        assert done.code == 0, done.err
        folder = tmp_path / weights.suffix[1:] / "test/tiny_val/retinanet"
        results.append((folder / "bbox_tiny_val_results.json").read_bytes())
    assert results[0] == results[1] and len(json.loads(results[0])) > 0


def test_a_checkpoint_becomes_one_of_detectron_and_goes_on_as_ours(trained, config, tmp_path):
    """Momentum is multiplied by the learning rate on the way there and divided by it on the way back."""
    first, back = tmp_path / "model_iter3.pkl", tmp_path / "model_iter3.pt"
    folder = tmp_path / "out/train/tiny_train/retinanet"
    done = run("train_net.py", "--cfg", config, "--skip-test", "SOLVER.MAX_ITER", 4)
    assert done.code == 0, done.err
    line = converted(folder / "model_iter3.pt", first)
    assert "momentum of" in line and "Detectron has no key for" in line and "'continuous'" in line
    assert "balance.refine" in line or "behind libra." in line
    line = converted(first, back, "--cfg", config)
    assert "after iteration 3" in line

    before, after = checkpoint.load(folder / "model_iter3.pt"), checkpoint.load(back)
    assert same(before["model"], after["model"])
    assert before["optimizer"]["param_groups"] == after["optimizer"]["param_groups"]
    for k, entry in before["optimizer"]["state"].items():
        buffer = after["optimizer"]["state"][k]["momentum_buffer"]
        torch.testing.assert_close(buffer, entry["momentum_buffer"], rtol=1e-6, atol=0)

    outputs = (tmp_path / "whole", tmp_path / "again")
    for output, start in zip(outputs, (folder / "model_iter3.pt", back), strict=True):
        place = output / "train/tiny_train/retinanet"
        place.mkdir(parents=True)
        (place / "model_iter3.pt").write_bytes(start.read_bytes())
        words = [
            "--cfg",
            config,
            "--resume",
            "--force",
            "--skip-test",
            "OUTPUT_DIR",
            output,
            "SOLVER.MAX_ITER",
            7,
        ]
        done = run("train_net.py", *words)
        assert done.code == 0, done.err
    one, two = (load_weights(o / "train/tiny_train/retinanet/model_final.safetensors")[0] for o in outputs)
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-4, atol=1e-6, msg=name)


def test_a_checkpoint_into_final_weights(trained, tmp_path):
    line = converted(trained.folder / "model_iter7.pt", tmp_path / "w.safetensors")
    assert "left out: optimizer and random state" in line and "circle, square, triangle" in line
    (one, texts), (two, final) = load_weights(tmp_path / "w.safetensors"), load_weights(trained.weights)
    assert same(one, two) and texts["class_names"] == final["class_names"] and texts["iteration"] == "7"
    done = run(
        "infer_simple.py", "--wts", tmp_path / "w.safetensors", "--output-dir", tmp_path, trained.images
    )
    assert done.code == 0, done.err


def test_an_address_and_an_old_target(detectron_file, tmp_path):
    target = tmp_path / "w.safetensors"
    target.write_bytes(b"old")
    with serving({"/model_iter4.pkl": Answer(detectron_file.read_bytes())}) as server:
        converted(f"{server.url}/model_iter4.pkl", target, "DOWNLOAD_CACHE", tmp_path / "cache")
    assert same(load_weights(target)[0], read_pickle(detectron_file).state)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cache", "w.safetensors"]


@pytest.mark.parametrize("target", ["w.pth", "w", "w.pkl.gz"])
def test_an_ending_that_is_not_written_exits_2(trained, tmp_path, target):
    refused(run(TOOL, trained.weights, tmp_path / target), 2, target, ".safetensors, .pkl, .pt")


def test_the_file_itself_as_target_exits_2_and_is_left_alone(detectron_file, tmp_path):
    file, link = tmp_path / "w.pkl", tmp_path / "link.pkl"
    file.write_bytes(detectron_file.read_bytes())
    link.symlink_to(file)
    for target in (file, link):
        refused(run(TOOL, file, target), 2, target, "another name")
    assert file.read_bytes() == detectron_file.read_bytes()


def test_sources_that_cannot_be_read_exit_3(tmp_path):
    (tmp_path / "w.pkl").write_bytes(b"<html>")
    refused(run(TOOL, tmp_path / "w.pkl", tmp_path / "w.safetensors"), 3, tmp_path / "w.pkl", "web page")
    refused(run(TOOL, tmp_path / "gone.pkl", tmp_path / "w.safetensors"), 3, "gone.pkl", "no such file")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["w.pkl"]


def test_a_checkpoint_needs_momentum_an_iteration_and_a_configuration(
    trained, detectron_file, config, tmp_path
):
    target = tmp_path / "w.pt"
    refused(run(TOOL, trained.weights, target), 3, "no momentum", "TRAIN.WEIGHTS")
    nameless = tmp_path / "w.pkl"
    nameless.write_bytes(detectron_file.read_bytes())
    words = [nameless, target, "--cfg", config, *WORDS]
    refused(run(TOOL, *words), 2, "--iteration")
    assert "after iteration 2" in converted(*words, "--iteration", 2)
    refused(run(TOOL, *words, "--iteration", "-1"), 2, "--iteration")
    refused(run(TOOL, trained.folder / "model_iter7.pt", target, "--cfg", config), 2, "as it is", "--cfg")


def test_a_folder_that_is_not_there_exits_4(trained, tmp_path):
    for name in ("w.safetensors", "w.pkl"):
        refused(run(TOOL, trained.weights, tmp_path / "gone" / name), 4, tmp_path / "gone" / name)


def test_no_words_exit_2():
    refused(run(TOOL), 2, "IN", "OUT")
