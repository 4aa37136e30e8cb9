# SPDX-License-Identifier: Apache-2.0
"""Reading COCO files: what is used, what is dropped and told, what is refused and how it is named."""

import gzip
import json
import logging
import os
from pathlib import Path

import pytest
import torch

from detectron_libra.data.coco import load_coco
from detectron_libra.data.json_file import read_json
from detectron_libra.errors import InputError
from tests.data.coco_files import coco, shared, write, write_image


def load(tmp_path, content, extent=1.0, **options):
    folder, file = write(tmp_path, content, with_images=False)
    return load_coco("set", folder, file, extent=extent, **options)


@pytest.mark.parametrize(("extent", "corners"), [(1.0, [4, 6, 23, 15]), (0.0, [4, 6, 24, 16])])
def test_width_and_height_become_corners_of_the_geometry(tmp_path, extent, corners):
    """The rule: x2 = x1 + max(0, w - 1)."""
    first = load(tmp_path, coco(), extent).records[0]
    assert first.boxes.dtype == torch.float32
    assert first.boxes[0].tolist() == corners
    assert first.classes.tolist() == [1, 2]


@pytest.mark.parametrize(("extent", "corners"), [(1.0, [0, 0, 63, 47]), (0.0, [0, 0, 64, 48])])
def test_boxes_are_clipped_to_the_image(tmp_path, caplog, extent, corners):
    """The rule: corners go to [0, W - 1] and [0, H - 1] before they are judged."""
    content = coco()
    content["annotations"][0]["bbox"] = [-8, -6, 300, 300]
    assert load(tmp_path, content, extent).records[0].boxes[0].tolist() == corners
    assert "clipped" in caplog.text and "ids: 1" in caplog.text


def test_dropped_boxes_are_counted_and_named_in_one_line(tmp_path, caplog):
    content = coco()
    content["annotations"][2]["bbox"] = [5, 5, 0, 9]
    dataset = load(tmp_path, content)
    assert sum(len(r.boxes) for r in dataset.records) == 7
    lines = [r.message for r in caplog.records if r.levelno == logging.WARNING]
    assert len(lines) == 1
    assert lines[0].endswith("dropped 1 of 8 annotations: zero width or height; ids 3")


def test_several_kinds_of_drops_share_one_line(tmp_path, caplog):
    content = coco()
    boxes = ([5, 5, 0, 9], [5, 5, -3, 9], [900, 5, 9, 9])
    for entry, bbox in zip(content["annotations"], boxes, strict=False):
        entry["bbox"] = bbox
    load(tmp_path, content)
    line = next(r.message for r in caplog.records if "dropped" in r.message)
    assert "dropped 3 of 8" in line
    for part in (
        "zero width or height (ids 1)",
        "negative width or height (ids 2)",
        "outside the image (ids 3)",
    ):
        assert part in line


@pytest.mark.parametrize(("least", "kept"), [(-1, [1, 2, 3]), (150, [1, 3]), (151, [3]), (201, [])])
def test_small_areas_are_dropped_by_the_annotations_own_area(tmp_path, caplog, least, kept):
    """Detectron's rule: dropped where `area` < TRAIN.GT_MIN_AREA; without `area`, ours is width x height."""
    content = coco(2)
    areas = {1: 150.0, 2: 149.5, 3: None}  # the boxes have 200, 192 and 200 square pixels
    content["annotations"] = content["annotations"][:3]
    for entry in content["annotations"]:
        entry["category_id"] = entry["id"]
        entry |= {"area": areas[entry["id"]]} if areas[entry["id"]] else {}
    content["categories"] = [{"id": k, "name": str(k)} for k in (1, 2, 3)]
    dataset = load(tmp_path, content, min_area=least)
    assert torch.cat([r.classes for r in dataset.records]).tolist() == kept
    assert ("an area under" in caplog.text and "TRAIN.GT_MIN_AREA" in caplog.text) == (len(kept) < 3)


def test_ids_with_gaps_keep_detectrons_orders(tmp_path):
    """The rules: images sorted by id; categories become 1..C in the order of the file."""
    content = coco(2)
    content["images"][0]["id"], content["images"][1]["id"] = 700, 30
    for entry in content["annotations"]:
        entry["image_id"] = {1: 700, 2: 30}[entry["image_id"]]
        entry["category_id"] = {1: 90, 2: 7}[entry["category_id"]]
    content["categories"] = [{"id": 90, "name": "a"}, {"id": 7, "name": "b"}]
    dataset = load(tmp_path, content)
    assert [r.image_id for r in dataset.records] == [30, 700]  # sorted, as Detectron's getImgIds().sort()
    assert dataset.class_names == ("a", "b") and dataset.category_ids == (
        90,
        7,
    )  # the file's order, not sorted
    assert dataset.records[0].classes.tolist() == [1, 2]


def test_text_ids_work(tmp_path):
    content = coco(2)
    for image in content["images"]:
        image["id"] = f"im{image['id']}"
    for entry in content["annotations"]:
        entry["image_id"] = f"im{entry['image_id']}"
    assert [r.image_id for r in load(tmp_path, content).records] == ["im1", "im2"]


def test_crowds_are_kept_and_marked(tmp_path):
    content = coco(1)
    content["annotations"][0]["iscrowd"] = 1
    content["annotations"][1]["iscrowd"] = "0"
    assert load(tmp_path, content).records[0].crowd.tolist() == [True, False]


def test_annotations_to_be_ignored_and_boxes_of_one_pixel_are_dropped(tmp_path, caplog):
    """The rule: kept are annotations that are not `ignore` 1 and whose clipped corners are x2 > x1, y2 > y1."""
    content = coco(2)
    content["annotations"][0]["ignore"] = 1
    content["annotations"][2]["bbox"] = [5, 5, 1, 9]
    assert [r.classes.tolist() for r in load(tmp_path, content).records] == [[2], [2]]
    assert "marked 'ignore' (ids 1)" in caplog.text and "(ids 3)" in caplog.text


def test_images_without_boxes_are_records_too(tmp_path):
    content = coco(3)
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] != 2]
    record = load(tmp_path, content).records[1]
    assert record.boxes.shape == (0, 4) and record.classes.shape == (0,)


def bad(change, *words):
    return pytest.param(change, words, id=" ".join(words))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        bad(lambda c: c["annotations"][3].update(bbox=[float("nan"), 1, 2, 3]), "annotation 4", "nan"),
        bad(lambda c: c["annotations"][3].update(bbox=["1", "2", "3", "4"]), "annotation 4", "bbox"),
        bad(lambda c: c["annotations"][3].update(bbox=[10**400, 2, 3, 4]), "annotation 4", "bbox"),
        bad(lambda c: c["annotations"][3].pop("bbox"), "annotation 4", "'bbox'"),
        bad(lambda c: c["annotations"][3].update(category_id=909), "annotation 4", "category id 909"),
        bad(lambda c: c["annotations"][3].update(image_id="2"), "annotation 4", "image_id '2'"),
        bad(lambda c: c["annotations"][3].update(category_id=True), "annotation 4", "category id True"),
        bad(lambda c: c["images"][1].update(id=1), "image 1", "duplicate"),
        bad(lambda c: c["images"][1].pop("file_name"), "image 2", "file_name"),
        bad(lambda c: c["images"][1].update(id=None), "images[1] ('img_1.png')", "'id'"),
        bad(lambda c: c["categories"][1].update(name=5), "category 2", "'name'"),
        bad(lambda c: c["images"][1].update(width="wide"), "image 2 (img_1.png)", "'wide'"),
        bad(lambda c: c["categories"][1].update(id=1), "category 1", "duplicate"),
        bad(lambda c: c.pop("images"), "'images'"),
        bad(lambda c: c.update(categories=[]), "'categories'", "empty"),
        bad(lambda c: [a.update(iscrowd=1) for a in c["annotations"]], "annotations", "crowd"),
        bad(lambda c: [a.update(bbox=[0.1, 0.1, 0.5, 0.5]) for a in c["annotations"]], "bbox", "pixel"),
        bad(lambda c: [a.update(image_id=a["image_id"] + 90) for a in c["annotations"]], "image_id 91"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_id_in_one_line(tmp_path, change, words):
    content = coco()
    change(content)
    with pytest.raises(InputError) as e:
        load(tmp_path, content, need_boxes=True)
    assert "train.json" in str(e.value) and "\n" not in str(e.value)
    for word in words:
        assert word in str(e.value)


def test_all_faults_come_at_once(tmp_path, caplog):
    content = coco()
    content["annotations"][0]["bbox"] = None
    content["annotations"][1]["category_id"] = 9
    content["images"][3]["width"] = -2
    with pytest.raises(InputError) as e:
        load(tmp_path, content)
    for word in ("annotation 1", "category id 9", "image 4"):
        assert word in str(e.value) and word in caplog.text


def test_categories_must_be_the_training_sets(tmp_path):
    with pytest.raises(InputError, match=r"\[a, b\].*\[b, a\]"):
        load(tmp_path, coco(), class_names=("b", "a"))


def test_a_test_set_needs_no_annotations(tmp_path):
    content = coco()
    del content["annotations"]
    dataset = load(tmp_path, content)
    assert len(dataset.records) == 4 and not dataset.annotated
    with pytest.raises(InputError, match="'annotations'"):
        load(tmp_path, content, need_boxes=True)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "empty"),
        (b'{"a": 1,\n  ,}', "line 2 column 3"),
        (b'{"a": [1, 2', "line 1"),
        (b"[1]", "top level is a list"),
        ("{}".encode("utf-16"), "UTF-16"),
        ("{}".encode("utf-32"), "UTF-32"),
        (gzip.compress(b"{}"), "unpack it"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", "too long"),
        (b'{"id": 7, "bbox": [], "bbox": 1}', "key 'bbox' of id 7: stands twice"),
        (b'{"images": [1], "a": {"b": 1, "b": 2}, "images": []}', "key 'b', key 'images': stands twice"),
    ],
)
def test_unreadable_json_is_told_with_its_place(tmp_path, raw, words):
    (tmp_path / "x.json").write_bytes(raw)
    with pytest.raises(InputError, match=words):
        read_json(str(tmp_path / "x.json"))


@pytest.mark.parametrize("special", ["pipe", "device"])
def test_what_has_no_end_is_refused_and_not_waited_for(tmp_path, special):
    file = tmp_path / "x.json"
    if special == "pipe":
        os.mkfifo(file)
    else:
        file.symlink_to("/dev/zero")
    with pytest.raises(InputError, match=r"x.json: a pipe or a device"):
        read_json(str(file))


def test_one_side_alone_must_be_the_files(tmp_path):
    content = coco()
    del content["images"][0]["height"]
    images, file = write(tmp_path, content | {"images": content["images"][1:]})
    write_image(Path(images) / "img_0.png", 48, 64)
    content["images"][0]["width"] = 64
    Path(file).write_text(json.dumps(content))
    assert load_coco("t", images, file, extent=1).records[0].height == 48
    content["images"][0]["width"] = 7
    Path(file).write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"image 1 \(img_0.png\): width 7.* 64 x 48"):
        load_coco("t", images, file, extent=1)


def test_a_name_cannot_make_a_line_of_its_own(tmp_path, caplog):
    content = coco()
    content["images"][0].update(file_name="a\nerror: b\x1b[31m.png", width=0)
    with pytest.raises(InputError) as e:
        load(tmp_path, content)
    assert r"a\nerror: b\x1b[31m.png" in str(e.value) and str(e.value).isprintable()


def test_a_byte_order_mark_is_no_fault(tmp_path):
    (tmp_path / "x.json").write_bytes(b"\xef\xbb\xbf" + json.dumps({"a": 1}).encode())
    assert read_json(str(tmp_path / "x.json")) == {"a": 1}


def test_bccd_as_its_authors_left_it(caplog):
    root = shared("data/bccd")
    dataset = load_coco(
        "bccd", str(root / "images"), str(root / "annotations/instances_train.json"), extent=1.0
    )
    assert "dropped 1 of 2805 annotations: zero width or height; ids 2288" in caplog.text
    assert dataset.class_names == ("RBC", "WBC", "Platelets")
    assert [int((torch.cat([r.classes for r in dataset.records]) == c).sum()) for c in (1, 2, 3)] == [
        2381,
        214,
        209,
    ]


def test_coco_images_have_crowds_gaps_and_empty_images():
    root = shared("data/coco_openlicence")
    file = root / "annotations/instances_train.json"
    dataset = load_coco("coco", str(root / "images"), str(file), extent=1.0, need_boxes=True)
    assert len(dataset.records) == 82 and len(dataset.class_names) == 80 and max(dataset.category_ids) == 90
    assert sum(int(r.crowd.sum()) for r in dataset.records) == 9
    assert sum(len(r.boxes) == 0 for r in dataset.records) == 1


def test_where_an_image_comes_from_is_kept_and_what_is_no_text_is_noted(tmp_path, caplog):
    content = coco()
    content["images"][0]["source"] = "phone"
    content["images"][2]["source"] = 7
    records = load(tmp_path, content).records
    assert [record.source for record in records] == ["phone", "", "", ""]
    assert "'source' is no text" in caplog.text and "image 3" in caplog.text
