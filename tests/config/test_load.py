# SPDX-License-Identifier: Apache-2.0
"""What a file and options become."""

import logging

import numpy as np
import pytest

from detectron_libra.config import (
    KEYS,
    Config,
    dump,
    infer,
    load_config,
    load_with_origins,
    parse_config,
    pyramid_levels,
    with_options,
    with_values,
)
from detectron_libra.errors import UsageError

BASELINE = """
MODEL:
  TYPE: retinanet
  CONV_BODY: FPN.add_fpn_ResNet50_conv5_body
  NUM_CLASSES: 81
NUM_GPUS: 8
SOLVER:
  WEIGHT_DECAY: 0.0001
  LR_POLICY: steps_with_decay
  BASE_LR: 1e-2
  GAMMA: 0.1
  MAX_ITER: 90000
  STEPS: [0, 60000, 80000]
FPN:
  FPN_ON: True
  MULTILEVEL_RPN: True
  RPN_MAX_LEVEL: 7
  RPN_MIN_LEVEL: 3
  COARSEST_STRIDE: 128
  EXTRA_CONV_LEVELS: True
RETINANET:
  RETINANET_ON: True
  NUM_CONVS: 4
  ASPECT_RATIOS: (1.0, 2.0, 0.5)
TRAIN:
  WEIGHTS: https://dl.fbaipublicfiles.com/detectron/ImageNetPretrained/MSRA/R-50.pkl
  DATASETS: ('coco_2014_train', 'coco_2014_valminusminival')
  SCALES: (800,)
  MAX_SIZE: 1333
  RPN_STRADDLE_THRESH: -1
TEST:
  DATASETS: ('coco_2014_minival',)
OUTPUT_DIR: .
"""


@pytest.fixture
def file(tmp_path):
    def write(text, name="a.yaml"):
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return write


def get(cfg, name):
    for part in name.split("."):
        cfg = getattr(cfg, part)
    return cfg


def test_a_detectron_file_loads(file):
    cfg = load_config(file(BASELINE))
    assert cfg.SOLVER.BASE_LR == 0.01  # PyYAML reads 1e-2 as text
    assert cfg.TRAIN.SCALES == (800,) and cfg.TRAIN.DATASETS[1] == "coco_2014_valminusminival"
    assert cfg.SOLVER.STEPS == [0, 60000, 80000]
    assert cfg.RETINANET.ASPECT_RATIOS == (1.0, 2.0, 0.5)
    assert pyramid_levels(cfg) == (3, 7)
    assert not cfg.TEST.PRECOMPUTED_PROPOSALS and not cfg.RPN.RPN_ON


def test_an_empty_file_is_all_defaults(file):
    assert load_config(file("")) == load_config() == Config()


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("SOLVER.BASE_LR", "1", 1.0),
        ("SOLVER.WEIGHT_DECAY", "0", 0.0),
        ("TRAIN.SCALES", "[480, 512]", (480, 512)),
        ("SOLVER.STEPS", "(0, 10)", [0, 10]),
        ("SOLVER.LRS", "[1e-3, 1]", [1e-3, 1.0]),
        ("TRAIN.WEIGHTS", "", ""),
        ("TRAIN.WEIGHTS", "None", ""),
        ("MODEL.TYPE", "1e3", "1e3"),
        ("OUTPUT_DIR", "C:\\data\\new", "C:\\data\\new"),
        ("OUTPUT_DIR", "données/été", "données/été"),
        ("DATA.CHECK", "off", "off"),
        ("LIBRA.PYRAMID.REFINE", "none", "none"),
        ("LIBRA.PYRAMID.REFINE", "None", "none"),
        ("TRAIN.USE_FLIPPED", "False", False),
        ("BBOX_XFORM_CLIP", "4", 4.0),
        ("PIXEL_MEANS", "[1, 2, 3.5]", np.array([[[1, 2, 3.5]]])),
        ("PIXEL_STDS", "[[[57.375, 57.12, 58.395]]]", np.array([[[57.375, 57.12, 58.395]]])),
        ("TRAIN.RPN_STRADDLE_THRESH", "-1", -1),
    ],
)
def test_values_are_read_alike_from_file_and_command_line(file, name, text, expected):
    *path, leaf = name.split(".")
    nested = (
        "".join("  " * i + f"{part}:\n" for i, part in enumerate(path))
        + "  " * len(path)
        + f"{leaf}: {text}\n"
    )
    for cfg in (load_config(file(nested)), load_config(None, [name, text])):
        value = get(cfg, name)
        np.testing.assert_equal(value, expected)
        assert type(value) is type(get(Config(), name))


def test_a_bare_on_is_the_key_on(file):
    cfg = load_config(
        file("FPN: {FPN_ON: True}\nLIBRA:\n  PYRAMID:\n    ON: True\n  BALANCED_L1:\n    ON: yes\n")
    )
    assert cfg.LIBRA.PYRAMID.ON and cfg.LIBRA.BALANCED_L1.ON


def test_options_win_over_the_file_and_a_section_can_be_one(file):
    path = file("SOLVER: {BASE_LR: 0.1, GAMMA: 0.5}\n")
    cfg, origins = load_with_origins(path, ["SOLVER", "{'BASE_LR': 0.2}", "DEVICE", "cpu"])
    assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.GAMMA) == (0.2, 0.5)
    assert origins == {
        "SOLVER.BASE_LR": "command line, option 1",
        "SOLVER.GAMMA": f"{path}:1",
        "DEVICE": "command line, option 2",
    }


def test_deprecated_keys_are_skipped_with_a_warning(file, caplog):
    with caplog.at_level(logging.WARNING):
        assert load_config(file("RPN: {ON: True}\nUSE_GPU_NMS: True\n")) == Config()
    assert "RPN.ON" in caplog.text and "USE_GPU_NMS" in caplog.text


def test_a_file_builds_on_another(file):
    file("SOLVER: {BASE_LR: 0.1, GAMMA: 0.5}\n", "base.yaml")
    cfg = load_config(file("_BASE_: base.yaml\nSOLVER: {GAMMA: 0.25}\n"))
    assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.GAMMA) == (0.1, 0.25)
    with pytest.raises(UsageError, match="leads back"):
        load_config(file("_BASE_: self.yaml\n", "self.yaml"))
    with pytest.raises(UsageError, match="no such configuration file"):
        load_config(file("_BASE_: absent.yaml\n"))


@pytest.mark.parametrize(
    ("rpn", "rois", "levels"), [(True, False, (3, 7)), (False, True, (2, 5)), (True, True, (2, 7))]
)
def test_the_pyramid_has_the_levels_of_whoever_reads_it(rpn, rois, levels):
    """The rule: RPN_MIN..MAX_LEVEL, ROI_MIN..MAX_LEVEL, or for both from the finest to the coarsest of the two."""
    opts = ["FPN.MULTILEVEL_RPN", str(rpn), "FPN.MULTILEVEL_ROIS", str(rois)]
    limits = ["FPN.RPN_MIN_LEVEL", "3", "FPN.RPN_MAX_LEVEL", "7"]
    assert pyramid_levels(load_config(None, [*opts, *limits])) == levels


@pytest.mark.parametrize("switch", ["MODEL.FASTER_RCNN", "MODEL.RPN_ONLY"])
def test_an_rpn_makes_the_proposals(switch):
    cfg = load_config(None, [switch, "True"])
    assert cfg.RPN.RPN_ON and not cfg.TEST.PRECOMPUTED_PROPOSALS
    assert load_config().TEST.PRECOMPUTED_PROPOSALS


def test_with_values_checks_like_a_file():
    cfg = with_values(Config(), {"MODEL.NUM_CLASSES": 4, "MODEL.FASTER_RCNN": True})
    assert cfg.MODEL.NUM_CLASSES == 4 and cfg.RPN.RPN_ON
    with pytest.raises(UsageError, match=r"MODEL.NUM_CLASSES: 1\.5 is of type float"):
        with_values(cfg, {"MODEL.NUM_CLASSES": 1.5})


def test_a_configuration_knows_which_keys_were_set(file):
    """What nobody set, weights may set; a key set to its own default counts as set."""
    path = file("PIXEL_ORDER: BGR\n")
    cfg = with_options(load_config(path, ["SOLVER.GAMMA", "0.1"]), ["DEVICE", "cpu"])
    cfg = infer(with_values(cfg, {"MODEL.NUM_CLASSES": 4}, "the data"))
    assert cfg.origins == {
        "PIXEL_ORDER": f"{path}:1",
        "SOLVER.GAMMA": "command line, option 1",
        "DEVICE": "command line, option 1",
        "MODEL.NUM_CLASSES": "the data",
    }
    assert cfg == with_values(Config(), {"DEVICE": "cpu", "MODEL.NUM_CLASSES": 4})
    assert parse_config(dump(cfg)).origins.keys() == KEYS.keys()
