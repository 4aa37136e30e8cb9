# SPDX-License-Identifier: Apache-2.0
"""Detectron's own files, of Python 2 and of any age, and what comes out of files that are none."""

import json
import logging
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from detectron_libra.config import Config, parse_config, with_values
from detectron_libra.errors import InputError
from detectron_libra.weights.cfg_text import read_cfg, write_cfg
from detectron_libra.weights.detectron import read_pickle, write_pickle
from tests.weights import detectors, pickles

CFG = """\
!!python/object/new:utils.collections.AttrDict
dictitems:
  MODEL: !!python/object/new:utils.collections.AttrDict
    dictitems: {TYPE: generalized_rcnn, BBOX_REG_WEIGHTS: !!python/tuple [10.0, 10.0, 5.0, 5.0]}
    state: {__immutable__: true}
  RESNETS: !!python/object/new:utils.collections.AttrDict
    dictitems: {STRIDE_1X1: false, TRANS_FUNC: bottleneck_transformation}
    state: {__immutable__: true}
  RPN: !!python/object/new:utils.collections.AttrDict
    dictitems: {SIZES: !!python/tuple [32, 64]}
    state: {__immutable__: true}
state: {__immutable__: true}
"""


def zoo_file(tmp_path, cfg=CFG, **changes):
    """A small file as the zoo's are: of Python 2, with momentum and blobs that no detector uses."""
    state = detectors.small_state("c4")
    write_pickle(tmp_path / "tmp.pkl", state=state, momentum=detectors.trained("c4"))
    blobs = pickle.loads((tmp_path / "tmp.pkl").read_bytes())
    blobs |= {"fc1000_b": np.zeros(1000, np.float32), "conv1_b": np.zeros(8, np.float32)} | changes
    path = tmp_path / "model_final.pkl"
    path.write_bytes(pickles.python2({"blobs": blobs, **({"cfg": cfg} if cfg else {})}))
    return path, state


def test_files_of_python_2_are_read(tmp_path):
    path, state = zoo_file(tmp_path)
    weights = read_pickle(path)
    detectors.same(state, weights.state)
    assert set(weights.preserved) == {"fc1000_b", "conv1_b"}
    assert set(weights.momentum) == set(detectors.trained("c4"))
    assert read_cfg(weights.metadata["config"], "f")["RPN"] == {"SIZES": [32, 64]}


def test_settings_are_what_the_weights_need_and_shapes_do_not_show(tmp_path):
    settings = read_pickle(zoo_file(tmp_path)[0]).settings
    assert settings == {
        "MODEL.BOX_GEOMETRY": "detectron",
        "MODEL.BBOX_REG_WEIGHTS": (10.0, 10.0, 5.0, 5.0),
        "PIXEL_ORDER": "BGR",
        "PIXEL_MEANS": [[[102.9801, 115.9465, 122.7717]]],
        "PIXEL_STDS": [[[1.0, 1.0, 1.0]]],
        "RESNETS.STRIDE_1X1": False,
        "RESNETS.TRANS_FUNC": "bottleneck_transformation",
        "RPN.SIZES": (32, 64),
    }


def test_a_whole_configuration_of_detectron_becomes_one_of_ours(tmp_path):
    """The cfg of a file, with every key that Detectron has, is a configuration that our own reader takes."""
    listed = json.loads((Path(__file__).parents[1] / "data/config_defaults.json").read_text())
    tree: dict = {}
    for name, key in listed.items():
        *path, leaf = name.split(".")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[leaf] = tuple(key["default"]) if key["type"] == "tuple" else key["default"]
    weights = read_pickle(zoo_file(tmp_path, write_cfg(tree))[0])
    assert parse_config(weights.metadata["config"], "cfg").MODEL.BBOX_REG_WEIGHTS == (10.0, 10.0, 5.0, 5.0)
    changed = with_values(Config(), dict(weights.settings), "settings")
    assert changed.PIXEL_MEANS.ravel().tolist() == [102.9801, 115.9465, 122.7717]


def test_files_from_before_the_box_weights_get_ones_and_bare_ones_nothing(tmp_path):
    """As Detectron does: a configuration without the key means factors of 1, no configuration nothing."""
    old = CFG.replace(", BBOX_REG_WEIGHTS: !!python/tuple [10.0, 10.0, 5.0, 5.0]", "")
    assert read_pickle(zoo_file(tmp_path, old)[0]).settings["MODEL.BBOX_REG_WEIGHTS"] == (1.0, 1.0, 1.0, 1.0)
    assert "MODEL.BBOX_REG_WEIGHTS" not in read_pickle(zoo_file(tmp_path, None)[0]).settings


def test_doubles_that_fit_are_exact_and_others_are_told(tmp_path, caplog):
    fits, rounds = np.full((8, 3, 7, 7), 0.5), np.full(8, 0.1)
    path, _ = zoo_file(tmp_path, conv1_w=fits, res_conv1_bn_s=rounds, res_conv1_bn_b=np.ones(8, np.float16))
    with caplog.at_level(logging.WARNING):
        state = read_pickle(path).state
    assert state["backbone.stem.conv.weight"].dtype == state["backbone.stem.norm.bias"].dtype == torch.float32
    assert (state["backbone.stem.conv.weight"] == 0.5).all()
    assert (
        "digits beyond float32 are dropped in res_conv1_bn_s" in caplog.text and "conv1_w" not in caplog.text
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"model": {"stem.conv1.weight": np.ones(1)}, "__author__": "x"}, "not weights of Detectron"),
        ([1, 2], "not weights of Detectron"),
        ({"blobs": [1]}, "not weights of Detectron"),
        ({"conv1_w": np.ones(1), "more": [1]}, "'more' holds no array"),
        ({"conv1_w": np.ones(1), 7: np.ones(1)}, "'7' holds no array"),
        ({"conv1_w": np.ones(1, np.complex64)}, "conv1_w holds complex64"),
        ({"blobs": {"conv1_w": np.ones(1)}, "cfg": 3}, "cfg: holds no text"),
        ({"blobs": {"conv1_w": np.ones(1)}, "detectron_libra": {"a": 1}}, "detectron_libra: holds no texts"),
        ({"blobs": {"conv1_w": np.ones(1)}, "detectron_libra": {"settings": "[]"}}, "no JSON object"),
        (
            {"blobs": {"conv1_w": np.ones(1)}, "cfg": "!!python/object/apply:os.system [x]"},
            "cfg: .*os.system",
        ),
    ],
)
def test_files_of_another_kind_are_told_in_one_line(tmp_path, content, reason):
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps(content, 2))
    with pytest.raises(InputError, match=reason) as error:
        read_pickle(path)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)
