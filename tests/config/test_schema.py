# SPDX-License-Identifier: Apache-2.0
"""The keys themselves: Detectron's are all there, ours leave Detectron as it is, nothing can be changed."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from detectron_libra.config import KEYS, Config, load_config
from detectron_libra.config.decode import coerce
from detectron_libra.config.fields import construct, flatten, sections, values_of
from detectron_libra.config.schema import Shapes

DETECTRON = json.loads((Path(__file__).parents[1] / "data/config_defaults.json").read_text())


@pytest.mark.parametrize("name", DETECTRON)
def test_detectron_key_has_its_type_and_default(name):
    value = values_of(Config())[name]
    expected = DETECTRON[name]["default"]
    assert type(value).__name__ == DETECTRON[name]["type"]
    if name == "ROOT_DIR":
        expected = str(Path.cwd())
    np.testing.assert_equal(np.asarray(value), np.asarray(expected))


def test_libra_parts_are_off_by_default():
    assert not any(
        value
        for name, value in values_of(Config()).items()
        if name.startswith("LIBRA.") and name.endswith(".ON")
    )
    assert all(value == 1 for name, value in values_of(Config()).items() if name.startswith("LOSS.WEIGHTS."))


def test_every_slot_of_the_imbalance_kit_is_plain_by_default():
    kinds = {name: value for name, value in values_of(Config()).items() if name.endswith(".KIND")}
    assert kinds == {
        "DATA.SAMPLER.KIND": "plain",
        "ASSIGNER.KIND": "iou",
        "LOSS.CLASS_WEIGHTS.KIND": "none",
        "LOSS.CLASSIFIER.KIND": "plain",
        "LOSS.BOX.KIND": "plain",
    }


def test_every_default_obeys_its_own_limits():
    for name, key in (flatten(Config) | flatten(Shapes)).items():
        if name != "DATASETS":
            np.testing.assert_equal(coerce(key.default, key), key.default, err_msg=name)


def test_every_key_and_section_is_documented():
    assert all(key.doc.endswith(".") for key in KEYS.values())
    assert all(
        cls.__doc__ and not cls.__doc__.startswith(f"{cls.__name__}(") for cls in sections(Config).values()
    )


def test_nothing_can_be_set():
    cfg = Config()
    with pytest.raises(dataclasses.FrozenInstanceError):
        cfg.SOLVER.BASE_LR = 1.0
    with pytest.raises(dataclasses.FrozenInstanceError):
        cfg.DEVICE = "cpu"


def test_two_configurations_share_no_list():
    Config().SOLVER.STEPS.append(7)
    Config().DATASETS["a"] = {}
    assert Config().SOLVER.STEPS == [] and Config().DATASETS == {}


def test_equality_sees_arrays():
    assert Config() == load_config()
    assert Config() != load_config(None, ["PIXEL_MEANS", "[1, 2, 3]"])
    assert construct(Config, values_of(Config())) == Config()
