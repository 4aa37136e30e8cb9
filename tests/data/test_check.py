# SPDX-License-Identifier: Apache-2.0
"""The check before the first step: images, levels, the generated faulty data sets, the tool."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from detectron_libra.data.check import load_checked
from detectron_libra.errors import InputError
from tests.data.coco_files import coco, shared, write

ROOT = Path(__file__).resolve().parents[2]


def check(tmp_path, content, level="quick", workers=0, **options):
    folder, file = write(tmp_path, content, with_images=not options.pop("no_images", False))
    options.pop("spoil", lambda path: None)(Path(folder))
    return load_checked("set", folder, file, extent=1.0, level=level, workers=workers)


def test_a_good_set_passes_silently(tmp_path, caplog):
    assert len(check(tmp_path, coco(), "full", workers=2).records) == 4
    assert not caplog.records


def test_missing_images_are_named_with_a_name_in_other_letters(tmp_path):
    def spoil(folder):
        (folder / "img_1.png").rename(folder / "IMG_1.png")

    with pytest.raises(InputError, match=r"image 2: .*img_1.png \(the folder has IMG_1.png\)"):
        check(tmp_path, coco(), spoil=spoil)


def test_a_wrong_folder_is_one_fault_not_one_per_image(tmp_path, caplog):
    with pytest.raises(InputError, match="looked for 4 images") as e:
        check(tmp_path, coco(), no_images=True)
    assert "img_2" not in str(e.value)


def test_a_size_that_is_not_the_files_is_told_with_both(tmp_path):
    folder, file = write(tmp_path, coco())
    content = coco()
    content["images"][2].update(height=64, width=48)
    Path(file).write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"image 3: .*img_2.png: .*64 x 48.*48 x 64"):
        load_checked("set", folder, file, extent=1.0)


def test_a_file_that_was_cut_is_found_without_decoding_the_others(tmp_path):
    def cut(folder):
        data = (folder / "img_0.png").read_bytes()
        (folder / "img_0.png").write_bytes(data[: len(data) * 2 // 3])

    with pytest.raises(InputError, match=r"image 1: .*img_0.png.*damaged"):
        check(tmp_path, coco(), "quick", spoil=cut)
    check(tmp_path, coco(), "off", spoil=cut)


def test_only_the_full_level_finds_damage_in_the_middle(tmp_path):
    def spoil(folder):
        data = bytearray((folder / "img_0.png").read_bytes())
        data[len(data) // 2] ^= 0xFF
        (folder / "img_0.png").write_bytes(bytes(data))

    check(tmp_path, coco(), "quick", spoil=spoil)
    with pytest.raises(InputError, match=r"image 1: .*img_0.png.*damaged"):
        check(tmp_path, coco(), "full", spoil=spoil)


def test_faults_of_entries_and_of_images_come_together(tmp_path):
    content = coco()
    content["annotations"][7]["bbox"] = []
    with pytest.raises(InputError, match="annotation 8.*img_0.png"):
        check(tmp_path, content, spoil=lambda folder: (folder / "img_0.png").unlink())


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    out = tmp_path_factory.mktemp("faulty")
    tool = shared("tools/make_bad_inputs.py")
    subprocess.run([sys.executable, str(tool), str(out)], check=True, capture_output=True)
    return out, json.loads((out / "expectations.json").read_text())["cases"]


def outcome(root, caplog):
    """What checking train and val of a case comes to, and the text of it."""

    def load(split, **options):
        file = str(root / f"annotations/instances_{split}.json")
        return load_checked(split, str(root / "images"), file, extent=1.0, level="full", **options)

    caplog.clear()
    try:
        train = load("train", need_boxes=True)
        load("val", class_names=train.class_names)
    except InputError as e:
        return "error", str(e), None
    return ("skip" if train.problems.dropped else "ok"), caplog.text, train


def fits(case, what, text, train):
    """Whether an outcome is one of those expected of a case."""
    if what not in (case["expect"], *case["also_ok"]) or (what == "error" and "\n" in text):
        return False
    words = case["message_contains"] if what == "error" else case["warning_contains"]
    if not all(w.lower() in text.lower() for w in words):
        return False
    if what == "ok":
        boxes = sum(int((~r.crowd).sum()) for r in train.records)
        return (
            case.get("images", len(train.records)) == len(train.records)
            and case.get("annotations", boxes) == boxes
        )
    return what == "error" or case.get("dropped_annotations", 0) in (0, train.problems.dropped)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_every_generated_faulty_set_comes_out_as_users_expect(faulty, caplog):
    out, cases = faulty
    caplog.set_level(logging.WARNING)
    wrong = []
    for name, case in cases.items():
        if not name.startswith("ckpt_"):
            what, text, train = outcome(out / name, caplog)
            if not fits(case, what, text, train):
                wrong.append((name, what, text))
    assert not wrong
    assert len(cases) > 70


@pytest.mark.slow
def test_the_tool_tells_one_line_and_exits_with_3(tmp_path):
    content = coco()
    content["annotations"][0]["bbox"] = None
    folder, file = write(tmp_path, content)
    command = [sys.executable, "tools/check_data.py", folder, file]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 3
    assert done.stderr.count("\n") == 1 and "annotation 1" in done.stderr
