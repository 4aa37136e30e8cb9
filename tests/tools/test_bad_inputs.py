# SPDX-License-Identifier: Apache-2.0
"""Faulty inputs through a short training plus evaluation: refused in one line, counted, or simply used."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.data.coco_files import shared
from tests.tools.bad_inputs import generate
from tests.tools.runs import refused

SAMPLE = (
    "img_truncated_jpeg",
    "img_png_16bit",
    "json_syntax_error",
    "id_unknown_category",
    "box_nan",
    "val_image_truncated",
    "json_val_without_boxes",
    "ckpt_zip_without_end",
    "ckpt_runs_code_on_load",
)
#: Cases at a time: each computes with a core or two.
AT_ONCE = 2


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    return generate(shared("tools/make_bad_inputs.py"), tmp_path_factory.mktemp("bad"))


@pytest.mark.parametrize("name", SAMPLE)
def test_a_case_comes_out_as_users_expect(cases, tmp_path, name):
    assert cases.faults(name, tmp_path / "out") == []


def test_faults_of_the_training_and_of_the_test_set_come_together(cases, tmp_path):
    """Rule 1: both sets are looked at before the first step."""
    root = cases.folder / "both"
    good, bad = cases.folder / "img_truncated_jpeg", cases.folder / "val_bad_boxes"
    root.mkdir()
    (root / "images").symlink_to(good / "images")
    (root / "annotations").symlink_to(bad / "annotations")
    done = cases.train("both", tmp_path / "out")
    refused(done, 3, "img_2.jpg", "instances_val.json", "nan")


@pytest.mark.slow
def test_every_case_comes_out_as_users_expect(cases, tmp_path):
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = pool.map(lambda name: cases.faults(name, tmp_path / name), cases.expected)
        wrong = {name: faults for name, faults in zip(cases.expected, found, strict=True) if faults}
    assert wrong == {}
    assert len(cases.expected) == 80
