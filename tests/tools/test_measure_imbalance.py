# SPDX-License-Identifier: Apache-2.0
"""The tool as users start it: both files, numbers of their own data, advice that the configuration takes."""

import json
import pickle
import re
import shutil

import numpy as np
import pytest
import yaml

from detectron_libra.config import load_config
from tests.builders.small import KINDS, LIBRA
from tests.tools.runs import refused, run

SECTIONS = ["data", "sample", "feature", "objective", "advice"]


def measure(config, *words):
    """(what the process printed, imbalance.json, imbalance.html)."""
    done = run("measure_imbalance.py", "--cfg", config, "--images", 6, *words)
    assert done.code == 0 and done.err == "", done.err
    folder = config.parent / "out/imbalance"
    return done, json.loads((folder / "imbalance.json").read_text()), (folder / "imbalance.html").read_text()


@pytest.fixture(scope="module")
def measured(trained, tmp_path_factory):
    """One measurement of trained weights; read only."""
    file = tmp_path_factory.mktemp("measured") / "mine.yaml"
    file.write_text(f"_BASE_: {trained.config}\nOUTPUT_DIR: {file.parent / 'out'}\n")
    return file, *measure(file, "--weights", trained.weights)


def test_both_files_are_written_and_the_page_is_named(measured):
    file, done, values, page = measured
    assert done.out.splitlines()[-1] == str(file.parent / "out/imbalance/imbalance.html")
    assert [place.name for place in (file.parent / "out").iterdir()] == ["imbalance"]
    assert list(values) == SECTIONS
    assert values["data"]["images"] == 9 and values["sample"]["of"] == "anchors"
    assert set(values["feature"]["levels"]) == {"P3", "P4", "P5"}
    assert set(values["objective"]["parts"]) == {"cls", "bbox"}
    assert values["objective"]["parts"]["bbox"]["weight"] == 0.5


def test_the_data_are_those_of_the_annotation_file(measured, trained):
    content = json.loads((trained.config.parent / "train/instances.json").read_text())
    data = measured[2]["data"]
    assert data["boxes"] == len(content["annotations"])
    names = {c["id"]: c["name"] for c in content["categories"]}
    for ident, name in names.items():
        own = [a for a in content["annotations"] if a["category_id"] == ident]
        assert data["classes"][name]["boxes"] == len(own)
        assert data["classes"][name]["images"] == len({a["image_id"] for a in own})


def test_every_section_ends_with_advice_that_the_configuration_takes(measured):
    file, _, values, page = measured
    assert len(values["advice"]) >= 4
    for k, one in enumerate(values["advice"]):
        assert set(one) == {"finding", "number", "yaml"} and one["finding"].endswith(".")
        assert isinstance(one["number"], float) and re.search(r"\d", one["finding"])
        assert one["finding"].replace("&", "&amp;") in page
        follow = file.with_name(f"follow{k}.yaml")
        follow.write_text(f"_BASE_: {file}\n{one['yaml']}")
        assert load_config(follow).origins and yaml.safe_load(one["yaml"])


def test_the_page_needs_nothing_from_elsewhere(measured):
    page = measured[3]
    assert page.count("<svg") >= 6 and page.count("Advice") == 4
    assert "<script" not in page and not re.search(r'(src|href)="(?!#|data:)', page) and "@import" not in page
    assert "nan" not in re.sub("<[^>]*>", " ", page).lower().split()


def test_the_same_seed_gives_the_same_file(measured, trained, config):
    assert measure(config, "--weights", trained.weights)[1] == measured[2]
    other = measure(config, "--weights", trained.output, "RNG_SEED", 4)[1]  # the folder of the run
    assert other["data"] == measured[2]["data"] and other["sample"] != measured[2]["sample"]


def test_random_weights_are_measured_and_said(config):
    _, values, page = measure(config)
    assert list(values) == SECTIONS and "random weights" in page


def test_weights_of_the_training_are_what_is_measured_by_default(config, trained, measured):
    _, values, page = measure(config, "TRAIN.WEIGHTS", trained.weights)
    assert values == measured[2] and "random weights" not in page and trained.weights.name in page


def test_a_source_per_image_splits_the_tables(config, trained):
    data = config.parent / "data"
    shutil.copytree(trained.config.parent / "train", data)
    content = json.loads((data / "instances.json").read_text())
    for k, image in enumerate(content["images"]):
        image["source"] = "phone" if k < 4 else "<stock>"
    (data / "instances.json").write_text(json.dumps(content))
    words = ("DATASETS.mine.IM_DIR", data / "images", "DATASETS.mine.ANN_FN", data / "instances.json")
    _, values, page = measure(config, "TRAIN.DATASETS", "['mine']", *words)
    sources = values["data"]["by_source"]
    assert {name: one["images"] for name, one in sources.items()} == {"<stock>": 5, "phone": 4}
    assert sum(one["boxes"] for one in sources.values()) == values["data"]["boxes"]
    assert all({"anchor_recall", "suspicious", "classes", "size"} <= set(one) for one in sources.values())
    assert "Source: &lt;stock&gt;" in page and "<stock>" not in page


def test_what_is_in_the_slots_of_the_imbalance_kit_is_measured_and_stays(config):
    kit = {
        "LIBRA.BALANCED_L1.ON": "False",
        "LOSS.BOX.KIND": "giou",
        "LOSS.CLASS_WEIGHTS.KIND": "inverse",
        "ASSIGNER.KIND": "atss",
        "DATA.SAMPLER.KIND": "repeat_factor",
    }
    words = [part for pair in kit.items() for part in pair]
    values = measure(config, *words)[1]
    told = " ".join(one["finding"] for one in values["advice"])
    assert "LOSS.CLASS_WEIGHTS.KIND inverse" in told and "LOSS.BOX.KIND giou" in told
    for one in values["advice"]:
        follow = config.with_name("follow.yaml")
        follow.write_text(f"_BASE_: {config}\n{one['yaml']}")
        load_config(follow, words)


def stored_proposals(images, file):
    """The boxes of an annotation file, moved by two pixels, as stored proposals."""
    content = json.loads(images.read_text())
    boxes = {image["id"]: [[20, 20, 50, 50]] for image in content["images"]}
    for a in content["annotations"]:
        x, y, w, h = a["bbox"]
        boxes[a["image_id"]].append([x + 2, y + 2, x + w, y + h])
    rows = [np.array(b, dtype=np.float32) for b in boxes.values()]
    table = {"boxes": rows, "scores": [np.ones(len(b), dtype=np.float32) for b in rows], "ids": list(boxes)}
    file.write_bytes(pickle.dumps(table, protocol=2))
    return file


@pytest.mark.parametrize("kind", ["faster_rcnn", "c4", "rpn_only", "fast_rcnn"])
def test_the_r_cnn_family_is_measured(kind, trained, tmp_path):
    tiny = yaml.safe_load(trained.config.read_text())
    file = tmp_path / "kind.yaml"
    kept = {name: tiny[name] for name in ("DATASETS", "DATA", "CPU", "LOG")}
    file.write_text(yaml.safe_dump(kept | {"OUTPUT_DIR": str(tmp_path / "out")}))
    keys = KINDS[kind] | LIBRA[kind] | {"MODEL.NUM_CLASSES": "-1", "TRAIN.DATASETS": "['tiny_train']"}
    keys |= {"TRAIN.SCALES": "(64,)", "TRAIN.MAX_SIZE": "64", "TRAIN.IMS_PER_BATCH": "2"}
    if kind == "fast_rcnn":
        stored = stored_proposals(trained.config.parent / "train/instances.json", tmp_path / "stored.pkl")
        keys["TRAIN.PROPOSAL_FILES"] = f"['{stored}']"
    words = [part for pair in keys.items() for part in pair]
    _, values, _ = measure(file, *words)
    assert (values["sample"]["first_stage"] is None) == (kind in ("rpn_only", "fast_rcnn"))
    assert ("missing" in values["feature"]) == (kind == "c4")
    assert ("missing" in values["data"]["anchor_recall"]) == (kind == "fast_rcnn")
    for one in values["advice"]:
        follow = tmp_path / "follow.yaml"
        follow.write_text(f"_BASE_: {file}\n{one['yaml']}")
        load_config(follow, words)


def test_what_cannot_be_measured_is_refused_in_one_line(config, trained, tmp_path):
    refused(run("measure_imbalance.py", "--cfg", config, "--images", 0), 2, "--images", "0")
    refused(run("measure_imbalance.py", "--cfg", tmp_path / "gone.yaml"), 2, "gone.yaml")
    refused(run("measure_imbalance.py", "--cfg", config, "--weights", tmp_path), 3, "no weights", tmp_path)
    refused(
        run("measure_imbalance.py", "--cfg", config, "--weights", tmp_path / "w.pt"), 3, "--weights", "w.pt"
    )
    other = (
        "DATASETS.tiny_train.SHAPES.CLASSES",
        "['ring', 'cross', 'square']",
        "DATASETS.tiny_train.DIR",
        tmp_path / "r",
    )
    refused(
        run("measure_imbalance.py", "--cfg", config, "--weights", trained.weights, *other),
        3,
        "ring",
        "circle",
    )
