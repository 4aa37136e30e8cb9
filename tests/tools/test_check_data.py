# SPDX-License-Identifier: Apache-2.0
"""Data sets are checked before training: everything that is wrong at once, by file and id."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from PIL import Image

from tests.tools.runs import ROOT, refused, run


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


def test_an_image_that_was_cut_is_found_and_quick_decodes_no_other(data):
    images, file, _ = data
    cut, spoilt = images / "000004.jpg", images / "000005.jpg"
    whole = cut.read_bytes()
    cut.write_bytes(whole[:-200])
    for level in ([], ["--quick"]):
        refused(run("check_data.py", *level, images, file), 3, "000004.jpg")
    cut.write_bytes(whole)
    Image.open(spoilt).save(spoilt, format="PNG")
    content = bytearray(spoilt.read_bytes())
    content[len(content) // 2] ^= 0xFF
    spoilt.write_bytes(content)
    refused(run("check_data.py", images, file), 3, "000005.jpg")
    assert run("check_data.py", "--quick", images, file).code == 0


def test_neither_or_both_ways_to_name_data_exit_2(trained, data):
    images, file, _ = data
    refused(run("check_data.py"), 2, "--cfg")
    refused(run("check_data.py", "--cfg", trained.config, images, file), 2, "--cfg")
    refused(run("check_data.py", images, file.with_name("gone.json")), 3, "gone.json")


def test_json_has_every_fault_of_both_sets_with_file_and_ids(data, trained):
    images, file, values = data
    values["annotations"][0].update(id=4711, bbox=[1, 1, 5])
    for entry in values["annotations"][1:8]:
        entry["bbox"] = [1, 1, 0, 5]
    file.write_text(json.dumps(values))
    (images / "000004.jpg").write_bytes(b"")
    declared = json.dumps({"IM_DIR": str(images), "ANN_FN": str(file)})
    words = ["DATASETS.tiny_train", declared, "DATASETS.tiny_val", declared, "--json"]
    done = run("check_data.py", "--cfg", trained.config, *words)
    assert done.code == 3 and len(done.err.splitlines()) == 2
    told = json.loads(done.out)
    assert told["ok"] is False and [s["phase"] for s in told["sets"]] == ["TRAIN", "TEST"]
    for one in told["sets"]:
        kinds = {(kind["level"], kind["text"]): kind for kind in one["faults"]}
        assert kinds["drop", "zero width or height"]["count"] == one["dropped"] == 7
        assert len(kinds["drop", "zero width or height"]["first"]) == 5
        (shape,) = (k for (level, text), k in kinds.items() if "four numbers" in text)
        first = values["annotations"][0]
        name = next(i["file_name"] for i in values["images"] if i["id"] == first["image_id"])
        assert shape["first"][0]["annotation_id"] == 4711
        assert (shape["first"][0]["image_id"], shape["first"][0]["file"]) == (first["image_id"], name)
        assert any("empty" in text for level, text in kinds if level == "error")


def test_a_repaired_copy_passes_and_the_file_stays_as_it_was(data, tmp_path):
    images, file, values = data
    values["annotations"][0].update(id=4711, bbox=["1", "1", "5", "5"])
    values["annotations"][1].update(id=4712, bbox=None)
    file.write_text(json.dumps(values))
    before, out = file.read_bytes(), tmp_path / "repaired.json"
    done = run("check_data.py", images, file, "--fix", out)
    assert done.code == 0, done.err
    assert "4711" in done.out and "4712" in done.out and str(out) in done.out
    assert file.read_bytes() == before
    again = run("check_data.py", images, out)
    assert again.code == 0 and f"{len(values['annotations']) - 1} boxes" in again.out
    refused(run("check_data.py", images, out, "--fix", out), 2, out)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", "repaired.json"]


def test_a_repaired_copy_can_be_read_whatever_letters_are_in_it(data, tmp_path):
    images, file, values = data
    values["categories"][0]["name"], values["categories"][1]["name"] = "\ud800", "été"
    file.write_text(json.dumps(values))
    out = tmp_path / "repaired.json"
    assert run("check_data.py", images, file, "--fix", out).code == 0
    assert json.loads(out.read_bytes())["categories"] == values["categories"]


def test_a_copy_that_cannot_be_made_exits_without_one(data, tmp_path):
    images, file, values = data
    values["categories"][1]["id"] = values["categories"][0]["id"]
    file.write_text(json.dumps(values))
    refused(run("check_data.py", images, file, "--fix", tmp_path / "out.json"), 3, "cannot be repaired")
    refused(
        run("check_data.py", images, tmp_path / "gone.json", "--fix", tmp_path / "out.json"), 3, "gone.json"
    )
    assert not (tmp_path / "out.json").exists()


def test_names_that_the_locale_cannot_spell_are_found_and_told(data):
    images, file, values = data
    for entry, name in zip(values["images"], ("日本語.jpg", "été.jpg"), strict=False):
        (images / entry["file_name"]).rename(images / name)
        entry["file_name"] = name
    file.write_text(json.dumps(values))
    plain = {key: value for key, value in os.environ.items() if key != "HOME" and not key.startswith("LC_")}
    command = [sys.executable, "tools/check_data.py", str(images), str(file)]
    options = {"cwd": ROOT, "env": {**plain, "LC_ALL": "C", "PYTHONUTF8": "0"}, "capture_output": True}
    done = subprocess.run(command, **options)
    assert (done.returncode, done.stderr) == (0, b"")
    (images / "été.jpg").unlink()
    done = subprocess.run(command, **options)
    assert done.returncode == 3 and done.stderr.count(b"\n") == 1
