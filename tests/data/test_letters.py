# SPDX-License-Identifier: Apache-2.0
"""Names in other letter case, and how often a folder is listed to find them."""

import os

import pytest

from detectron_libra.data import letters
from detectron_libra.data.check import look_at_images
from detectron_libra.data.coco import from_content
from detectron_libra.data.faults import Faults
from detectron_libra.data.letters import Letters
from detectron_libra.data.mend import images as mend_images


def content(count: int) -> dict:
    """A file of which no image but the first is there under its name."""
    return {
        "images": [{"id": k, "file_name": f"Image_{k}.png", "width": 8, "height": 8} for k in range(count)],
        "categories": [{"id": 1, "name": "thing"}],
        "annotations": [],
    }


@pytest.fixture
def listings(monkeypatch):
    """Folders that were listed, one entry per time."""
    seen = []

    def listed(folder):
        seen.append(folder)
        return original(folder)

    original = os.listdir
    monkeypatch.setattr(letters.os, "listdir", listed)
    return seen


def test_names_that_differ_in_the_case_of_letters_alone(tmp_path):
    for name in ("A.png", "a.PNG", "b.png"):
        (tmp_path / name).touch()
    found = Letters()
    assert sorted(found.twins(str(tmp_path), "a.png")) == ["A.png", "a.PNG"]
    assert found.twins(str(tmp_path), "c.png") == []
    assert found.twins(str(tmp_path / "none"), "a.png") == []
    assert found.twins("\0", "a.png") == []


@pytest.mark.parametrize("count", [4, 400])
def test_a_folder_is_listed_once_however_many_images_are_missing(tmp_path, listings, count):
    (tmp_path / "Image_0.png").touch()
    (tmp_path / "image_1.PNG").touch()
    dataset = from_content(content(count), "set", str(tmp_path), "a.json", extent=1, strict=False)
    problems = look_at_images(dataset).problems
    missing = next(kind for kind in problems.kinds.values() if kind.text.startswith("no such image"))
    assert missing.count == count - 1 and missing.first[0].endswith("(the folder has image_1.PNG)")
    assert listings == [str(tmp_path)]


def test_a_repair_lists_a_folder_once(tmp_path, listings):
    (tmp_path / "image_1.PNG").touch()
    wanted = content(50)
    mend_images(wanted, str(tmp_path), Faults("a.json"))
    assert wanted["images"][1]["file_name"] == "image_1.PNG"
    assert len(set(listings)) == len(listings) == 1
