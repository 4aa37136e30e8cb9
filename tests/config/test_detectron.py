# SPDX-License-Identifier: Apache-2.0
"""Which keys Detectron has, and a configuration in its words."""

import json
from pathlib import Path

from detectron_libra.config import KEYS, Config, load_config
from detectron_libra.config.detectron import detectron_values, is_ours, only_ours

DETECTRON = json.loads((Path(__file__).parents[1] / "data/config_defaults.json").read_text())


def flat(tree: dict, prefix: str = "") -> dict:
    found = {}
    for name, value in tree.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found


def test_every_key_is_detectron_s_or_ours():
    assert {name for name in KEYS if not is_ours(name)} == set(DETECTRON)


def test_values_have_the_types_that_detectron_takes():
    """It takes tuples for tuples, and lists for arrays; a name of ours for a policy becomes its own."""
    values = flat(detectron_values(load_config(None, ["SOLVER.LR_POLICY", "cosine"])))
    assert values.keys() == DETECTRON.keys()
    assert values["SOLVER.LR_POLICY"] == "cosine_decay"
    for name, value in values.items():
        kind = {"ndarray": "list", "float64": "float"}.get(DETECTRON[name]["type"], DETECTRON[name]["type"])
        assert type(value).__name__ == kind, name


def test_what_detectron_cannot_say():
    cfg = load_config(None, ["PIXEL_ORDER", "RGB", "TRAIN.KEEP_EMPTY", "True", "RPN.STRIDE", "8"])
    assert only_ours(cfg) == {"PIXEL_ORDER": "RGB"}
    assert only_ours(Config()) == {}
