# SPDX-License-Identifier: Apache-2.0
"""What docs/from-detectron.md says exists: its keys, its tools, its links, its commands."""

import re
from pathlib import Path

import pytest

from detectron_libra.builders.solver import as_options, larger_steps, longer_schedule
from detectron_libra.config import KEYS, load_config
from detectron_libra.config.load import SECTIONS

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs/from-detectron.md").read_text()
#: Detectron's tools that the page says are not here.
ABSENT = {"infer.py", "convert_pkl_to_pb.py", "pickle_caffe_blobs.py", "convert_selective_search.py"}


def test_every_key_that_is_named_exists():
    named = set(re.findall(r"\b[A-Z][A-Z_]+(?:\.[A-Z_]+)+\b", TEXT))
    assert len(named) > 20 and named <= {*KEYS, *SECTIONS}


def test_every_tool_that_is_named_exists_but_those_said_not_to():
    named = set(re.findall(r"\b(\w+\.py)\b", TEXT)) - {"config.py"}
    assert len(named) > 8 and {n for n in named if not (ROOT / "tools" / n).exists()} == ABSENT


def test_links_and_folders_lead_somewhere():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", TEXT):
        assert (ROOT / "docs" / target).exists(), target
    folders = set(re.findall(r"`(configs/\w+)`", TEXT)) - {"configs/12_2017_baselines"}
    assert len(folders) == 4 and all((ROOT / folder).is_dir() for folder in folders)


@pytest.mark.parametrize("keys", [larger_steps, longer_schedule])
def test_the_commands_for_one_process_are_those_that_a_run_prints(keys):
    cfg = load_config(str(ROOT / "configs/baselines/retinanet_R-50-FPN_1x.yaml"))
    assert f"`NUM_GPUS 1 {as_options(keys(cfg))}`" in TEXT
