# SPDX-License-Identifier: Apache-2.0
"""docs/imbalance.md: every example is a configuration that builds, and every slot and part is in it."""

import re
from pathlib import Path

import pytest

from detectron_libra.builders.detector import build_detector
from detectron_libra.builders.imbalance import switched_on
from detectron_libra.config import parse_config
from detectron_libra.config.fields import values_of
from detectron_libra.config.schema import KEYS, Config
from tests.builders.small import FASTER_RCNN, RETINANET

TEXT = (Path(__file__).parents[2] / "docs/imbalance.md").read_text()
EXAMPLES = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)


def with_detector(example):
    """The example for the detector that it is for: a RetinaNet, or Faster R-CNN where that has no such loss."""
    detector = FASTER_RCNN if "seesaw" in example else RETINANET
    return parse_config("\n".join(f"{key}: {value}" for key, value in nested(detector)) + f"\n{example}")


def nested(values):
    """Dotted keys as lines of YAML, a section each."""
    sections: dict[str, list[str]] = {}
    for key, value in values.items():
        name, leaf = key.split(".")
        text = value.replace("(", "[").replace(")", "]")
        sections.setdefault(name, []).append(f"{leaf}: {text}")
    return [(name, "{" + ", ".join(leaves) + "}") for name, leaves in sections.items()]


def test_there_is_an_example_of_every_part():
    assert len(EXAMPLES) == 5


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda text: text.split()[-1])
def test_an_example_switches_its_part_on_and_builds(example):
    cfg = with_detector(example)
    assert len(switched_on(cfg)) == 1
    build_detector(cfg, 4)


def test_every_kind_of_every_slot_is_told_about():
    for name in (n for n in values_of(Config()) if n.endswith(".KIND")):
        assert f"`{name}`" in TEXT
        assert all(f"`{choice}`" in TEXT for choice in KEYS[name].choices), name
