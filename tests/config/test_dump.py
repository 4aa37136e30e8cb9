# SPDX-License-Identifier: Apache-2.0
"""A configuration written and read again is the same; the reference of keys is up to date."""

import math
from pathlib import Path

import pytest
import yaml

from detectron_libra.config import Config, diff, dump, load_config, parse_config
from detectron_libra.config.dump import markdown

ODD_TEXT = [
    "None",
    "800",
    "'quoted'",
    "off",
    "(1,)",
    "a: b # c",
    "",
    " x ",
    "é\n日本",
    "1e-4",
    "\udc80",
    '"',
    "{'a': 1}",
]


def test_defaults_come_back():
    assert parse_config(dump(Config())) == Config()


def test_values_of_every_type_come_back():
    lr = math.nextafter(0.1, 1)
    opts = [
        "SOLVER.BASE_LR",
        repr(lr),
        "PIXEL_MEANS",
        f"[{math.pi!r}, 1e-300, 1e300]",
        "TRAIN.SCALES",
        "(96, 128)",
    ]
    opts += [
        "DATASETS",
        "{'a': {'IM_DIR': 'i', 'ANN_FN': '800'}, 'b': {'DIR': '1'}}",
        "MODEL.FASTER_RCNN",
        "True",
    ]
    opts += ["EXPECTED_RESULTS", "[['coco', 'box', 'AP', (0.3, 0.1)]]", "SOLVER.STEPS", "[0, 5]"]
    cfg = load_config(None, opts)
    again = parse_config(dump(cfg))
    assert again == cfg and lr == again.SOLVER.BASE_LR
    assert diff(again, cfg) == []
    assert isinstance(yaml.safe_load(dump(cfg)), dict)


@pytest.mark.parametrize("text", ODD_TEXT)
def test_odd_text_comes_back(text):
    cfg = load_config(None, ["OUTPUT_DIR", repr(text), "TRAIN.DATASETS", repr((text,))])
    assert text == cfg.OUTPUT_DIR
    assert parse_config(dump(cfg)) == cfg


def test_diff_names_old_and_new():
    new = load_config(None, ["SOLVER.BASE_LR", "0.01", "TRAIN.SCALES", "(96,)", "PIXEL_MEANS", "[1, 2, 3]"])
    assert diff(Config(), new) == [
        "TRAIN.SCALES: (600,) -> (96,)",
        "SOLVER.BASE_LR: 0.001 -> 0.01",
        "PIXEL_MEANS: [[[102.9801, 115.9465, 122.7717]]] -> [[[1.0, 2.0, 3.0]]]",
    ]


def test_the_reference_of_keys_is_up_to_date():
    """Made by: python tools/print_config.py --markdown > docs/keys.md"""
    assert (Path(__file__).parents[2] / "docs/keys.md").read_text() == markdown()
