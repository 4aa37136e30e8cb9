# SPDX-License-Identifier: Apache-2.0
"""Rules: boxes keep VOC's numbers, class order is stable, `difficult` is a crowd, faults name the file."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from detectron_libra.data.coco import load_coco
from detectron_libra.data.voc import convert
from detectron_libra.errors import InputError

ROOT = Path(__file__).resolve().parents[2]


def write(
    folder: Path,
    name: str,
    objects: list[tuple[str, tuple[int, int, int, int], int]],
    size: tuple[int, int] = (64, 48),
) -> None:
    rows = "".join(
        f"<object><name>{c}</name><difficult>{d}</difficult><bndbox><xmin>{b[0]}</xmin><ymin>{b[1]}</ymin>"
        f"<xmax>{b[2]}</xmax><ymax>{b[3]}</ymax></bndbox></object>"
        for c, b, d in objects
    )
    sides = f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>"
    (folder / f"{name}.xml").write_text(
        f"<annotation><filename>{name}.jpg</filename>{sides}{rows}</annotation>"
    )


def test_boxes_classes_and_difficult(tmp_path):
    write(tmp_path, "b", [("dog", (1, 2, 11, 22), 0), ("cat", (5, 5, 9, 9), 1)])
    write(tmp_path, "a", [("cat", (3, 3, 30, 40), 0)])
    content = convert(tmp_path, ["b", "a"], classes=["cat"])
    assert [i["file_name"] for i in content["images"]] == ["b.jpg", "a.jpg"]
    assert [(c["id"], c["name"]) for c in content["categories"]] == [(1, "cat"), (2, "dog")]
    assert [a["bbox"] for a in content["annotations"]] == [[1, 2, 10, 20], [5, 5, 4, 4], [3, 3, 27, 37]]
    assert [a["iscrowd"] for a in content["annotations"]] == [0, 1, 0]


def test_the_tool_writes_a_set_that_loads(tmp_path):
    write(tmp_path, "a", [("cat", (3, 3, 30, 40), 0)])
    (tmp_path / "split.txt").write_text("a 1\n\n")
    out = tmp_path / "coco.json"
    command = [
        sys.executable,
        "tools/voc_to_coco.py",
        str(tmp_path),
        str(out),
        "--split",
        str(tmp_path / "split.txt"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "1 images, 1 annotations, 1 categories" in done.stdout
    assert len(json.loads(out.read_text())["images"]) == 1
    dataset = load_coco("set", str(tmp_path), str(out), extent=0.0)
    assert dataset.class_names == ("cat",)
    assert dataset.records[0].boxes.tolist() == [[3, 3, 30, 40]]


@pytest.mark.parametrize(
    ("text", "says"),
    [("<annotation>", "XML"), ("<annotation/>", "filename"), (None, "no such annotation file")],
)
def test_a_fault_names_the_file(tmp_path, text, says):
    if text is not None:
        (tmp_path / "a.xml").write_text(text)
    with pytest.raises(InputError, match=says) as error:
        convert(tmp_path, ["a"])
    assert "a.xml" in str(error.value)
