# SPDX-License-Identifier: Apache-2.0
"""The data sets of a run in one pass: every fault of every set, and images that are trained and tested on."""

import json
from pathlib import Path

import pytest

from detectron_libra.builders.sets import load_datasets, survey_sets
from detectron_libra.config import load_config
from detectron_libra.errors import InputError, UsageError
from tests.data.coco_files import coco, write
from tests.tools.bad_inputs import QUICKSTART


@pytest.fixture
def declare(tmp_path):
    """A configuration with a training and a test set, the content of each as given."""

    def make(train, val, *words):
        entries = {}
        for name, content in (("one", train), ("two", val)):
            (tmp_path / name).mkdir()
            folder, file = write(tmp_path / name, content)
            entries[name] = {"IM_DIR": folder, "ANN_FN": file}
        pairs = ["DATASETS", json.dumps(entries), "TRAIN.DATASETS", "('one',)", "TEST.DATASETS", "('two',)"]
        return load_config(QUICKSTART, [*pairs, *words])

    return make


def test_faults_of_all_sets_are_one_line(declare):
    train, val = coco(), coco()
    train["annotations"][0]["bbox"] = None
    val["annotations"][1]["category_id"] = 77
    cfg = declare(train, val)
    Path(cfg.DATASETS["two"]["IM_DIR"], "img_3.png").unlink()
    with pytest.raises(InputError) as e:
        load_datasets(cfg)
    text = str(e.value)
    assert "\n" not in text
    for word in ("one/train.json", "annotation 1 of", "two/train.json", "category id 77", "img_3.png"):
        assert word in text


def test_a_set_that_cannot_be_read_hides_no_other(declare):
    val = coco()
    val["annotations"][0]["bbox"] = None
    cfg = declare(coco(), val)
    Path(cfg.DATASETS["one"]["ANN_FN"]).write_text("{")
    with pytest.raises(InputError, match=r"one/train.json: no JSON.*two/train.json: annotation 1"):
        load_datasets(cfg)
    assert [found.phase for found in survey_sets(cfg)] == ["TRAIN", "TEST"]


def test_other_classes_are_told_although_the_training_set_has_faults(declare):
    train, val = coco(), coco()
    train["annotations"][0]["bbox"] = None
    val["categories"].reverse()
    with pytest.raises(InputError, match=r"annotation 1.*differ from the training set's"):
        load_datasets(declare(train, val))


def test_images_that_are_trained_on_are_told(declare, caplog):
    cfg = declare(coco(), coco())
    same = {"one": cfg.DATASETS["one"], "two": cfg.DATASETS["one"]}
    pairs = ["DATASETS", json.dumps(same), "TRAIN.DATASETS", "('one',)", "TEST.DATASETS", "('two',)"]
    train, test = load_datasets(load_config(QUICKSTART, pairs))
    assert (len(train), len(test)) == (1, 1)
    assert "4 of its 4 images are trained on, too" in caplog.text
    caplog.clear()
    load_datasets(cfg)
    assert "trained on" not in caplog.text


def test_without_testing_the_test_sets_are_not_looked_at(declare):
    cfg = declare(coco(), coco())
    Path(cfg.DATASETS["two"]["ANN_FN"]).unlink()
    assert load_datasets(cfg, testing=False)[1] == []
    with pytest.raises(UsageError, match=r"TRAIN\.DATASETS"):
        load_datasets(load_config(QUICKSTART, ["TRAIN.DATASETS", "()"]))
