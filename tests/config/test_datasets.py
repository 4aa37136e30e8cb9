# SPDX-License-Identifier: Apache-2.0
"""Declared data sets: from the file, from the command line, and one on top of the other."""

import pytest

from detectron_libra.config import load_config, parse_config
from detectron_libra.errors import UsageError

FILE = "DATASETS:\n  a_train: {IM_DIR: images, ANN_FN: t.json}\n  a_val: {IM_DIR: images, ANN_FN: v.json}\n"


def test_the_command_of_an_own_data_set():
    opts = ["DATASETS", '{"bad_train": {"IM_DIR": "x", "ANN_FN": "y"}}', "TRAIN.DATASETS", "('bad_train',)"]
    cfg = load_config(None, [*opts, "MODEL.NUM_CLASSES", "-1"])
    assert cfg.DATASETS == {"bad_train": {"IM_DIR": "x", "ANN_FN": "y"}}
    assert cfg.TRAIN.DATASETS == ("bad_train",) and cfg.MODEL.NUM_CLASSES == -1


@pytest.mark.parametrize(
    "opts",
    [
        ["DATASETS", '{"a_val": {"ANN_FN": "other.json"}, "b.c": {"IM_DIR": "i", "ANN_FN": "n"}}'],
        ["DATASETS.a_val.ANN_FN", "other.json", "DATASETS.b.c.IM_DIR", "i", "DATASETS.b.c.ANN_FN", "n"],
    ],
)
def test_the_command_line_adds_to_the_file(tmp_path, opts):
    (tmp_path / "a.yaml").write_text(FILE)
    assert load_config(tmp_path / "a.yaml", opts).DATASETS == {
        "a_train": {"IM_DIR": "images", "ANN_FN": "t.json"},
        "a_val": {"IM_DIR": "images", "ANN_FN": "other.json"},
        "b.c": {"IM_DIR": "i", "ANN_FN": "n"},
    }


def test_generated_sets_have_every_value():
    text = "DATASETS: {s: {DIR: out/s, SHAPES: {IMAGES: 9, SIZE: [96, 128], CLASSES: [circle]}}}\n"
    expected = {"IMAGES": 9, "SIZE": (96, 128), "CLASSES": ("circle",), "IMBALANCE": 1.0, "CROWDING": 0.0}
    assert parse_config(text).DATASETS["s"] == {
        "DIR": "out/s",
        "SHAPES": {**expected, "MAX_OBJECTS": 6, "SEED": 0},
    }
    cfg = load_config(None, ["DATASETS", "{'s': {'DIR': 'd'}}", "DATASETS.s.SHAPES.SEED", "4"])
    assert cfg.DATASETS["s"]["SHAPES"]["SEED"] == 4


def test_another_kind_replaces_the_entry(tmp_path):
    (tmp_path / "a.yaml").write_text("DATASETS: {s: {DIR: out/s}}\n")
    cfg = load_config(tmp_path / "a.yaml", ["DATASETS", "{'s': {'IM_DIR': 'i', 'ANN_FN': 'n'}}"])
    assert cfg.DATASETS == {"s": {"IM_DIR": "i", "ANN_FN": "n"}}


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ("{s: {IM_DIR: i}}", "a.yaml:1: DATASETS.s: ANN_FN missing; write s: {IM_DIR: path, ANN_FN: path}"),
        ("{s: {}}", "IM_DIR and ANN_FN missing"),
        ("{s: {SHAPES: {}}}", "DIR missing; write s: {DIR: path}"),
        ("{s: {IMDIR: i, ANN_FN: n}}", "DATASETS.s.IMDIR: unknown key (did you mean IM_DIR?)"),
        ("{s: {IM_DIR: [i], ANN_FN: n}}", "DATASETS.s.IM_DIR: ['i'] is of type list; it must be text"),
        ("{s: {IM_DIR: i, DIR: n}}", "IM_DIR and ANN_FN do not go with SHAPES and DIR"),
        ("{s: {DIR: d, SHAPES: {SEEDS: 3}}}", "DATASETS.s.SHAPES.SEEDS: unknown key (did you mean SEED?)"),
        ("{s: {DIR: d, SHAPES: {IMAGES: 0}}}", "DATASETS.s.SHAPES.IMAGES: 0 is too small"),
        ("{s: path}", "DATASETS.s: 'path' is no mapping"),
        ("[s]", "DATASETS: ['s'] is no mapping"),
    ],
)
def test_faults_are_named(entries, message):
    with pytest.raises(UsageError) as e:
        parse_config(f"DATASETS: {entries}\n", "a.yaml")
    assert message in str(e.value)
    assert len(str(e.value).splitlines()) == 1


def test_a_voc_set_has_a_year_of_its_own_or_none():
    opts = ["DATASETS", '{"v": {"VOC_DIR": "kit/VOC2007", "SPLIT": "test"}}']
    assert load_config(None, opts).DATASETS["v"] == {"VOC_DIR": "kit/VOC2007", "SPLIT": "test", "YEAR": 0}
    assert load_config(None, [*opts, "DATASETS.v.YEAR", "2008"]).DATASETS["v"]["YEAR"] == 2008
    other = [*opts, "DATASETS", '{"v": {"IM_DIR": "i", "ANN_FN": "n"}}']
    assert load_config(None, other).DATASETS == {"v": {"IM_DIR": "i", "ANN_FN": "n"}}
