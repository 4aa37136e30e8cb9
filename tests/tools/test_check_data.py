# SPDX-License-Identifier: Apache-2.0
"""Data sets are checked before training: everything that is wrong at once, by file and id."""

import json
import shutil

import pytest

from tests.tools.runs import refused, run


@pytest.fixture
def data(trained, tmp_path):
    """(image folder, annotation file, annotations) of a copy of the training set."""
    shutil.copytree(trained.config.parent / "train", tmp_path / "data")
    file = tmp_path / "data/instances.json"
    return tmp_path / "data/images", file, json.loads(file.read_text())


def test_a_sound_configuration_lists_images_and_boxes_of_both_sets(trained):
    done = run("check_data.py", "--cfg", trained.config)
    assert done.code == 0 and done.err == ""
    lines = [line for line in done.out.splitlines() if "images" in line]
    assert len(lines) == 2 and "9 images" in lines[0] and "5 images" in lines[1]
    assert all(name in lines[0] for name in ("circle", "square", "triangle"))


def test_a_folder_and_a_file_without_any_configuration(data):
    images, file, values = data
    done = run("check_data.py", images, file)
    assert done.code == 0, done.err
    assert f"9 images, {len(values['annotations'])} boxes" in done.out


def test_several_faults_are_named_in_one_go(data):
    images, file, values = data
    values["annotations"][0].update(id=4711, bbox=[1, 1, 5])
    values["annotations"][1].update(id=4712, category_id=77)
    file.write_text(json.dumps(values))
    done = run("check_data.py", images, file)
    assert done.code == 3 and "Traceback" not in done.err
    assert all(word in done.err for word in ("instances.json", "4711", "[1, 1, 5]", "4712", "77"))


def test_a_damaged_image_is_found_and_quick_reads_headers_only(data):
    images, file, _ = data
    broken = images / "000004.jpg"
    broken.write_bytes(broken.read_bytes()[:-200])
    refused(run("check_data.py", images, file), 3, "000004.jpg")
    assert run("check_data.py", "--quick", images, file).code == 0


def test_neither_or_both_ways_to_name_data_exit_2(trained, data):
    images, file, _ = data
    refused(run("check_data.py"), 2, "--cfg")
    refused(run("check_data.py", "--cfg", trained.config, images, file), 2, "--cfg")
    refused(run("check_data.py", images, file.with_name("gone.json")), 3, "gone.json")
