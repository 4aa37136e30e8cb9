# SPDX-License-Identifier: Apache-2.0
"""Repaired copies: corrected where one thing can be meant, otherwise without the faulty entry, and sound."""

import pytest

from detectron_libra.data.check import load_checked
from detectron_libra.data.coco import from_content
from detectron_libra.data.repair import repair
from detectron_libra.errors import InputError
from tests.data.coco_files import coco, write


def repaired(tmp_path, change, **options):
    """Content and changes of a set after a repair, which passes the check then."""
    content = coco()
    folder, file = write(tmp_path, content)
    change(content)
    changes = repair(content, folder, file, extent=1.0, level="full", workers=0, **options)
    left = from_content(content, "set", folder, file, extent=1.0, strict=False).problems
    assert not left.kinds
    return content, {k.text: k.count for k in changes.kinds.values()}


def annotation(content, ident):
    (found,) = (a for a in content["annotations"] if a["id"] == ident)
    return found


#: What every annotation of ``coco()`` lacks.
FILLED = {"'iscrowd' written as 0 or 1": 8, "'area' is that of the box": 8}


def test_a_sound_set_gets_what_pycocotools_wants(tmp_path):
    content, changes = repaired(tmp_path, lambda c: None)
    assert changes == FILLED
    assert annotation(content, 1) == {
        "id": 1,
        "image_id": 1,
        "category_id": 1,
        "bbox": [4, 6, 20, 10],
        "area": 200,
        "iscrowd": 0,
    }


@pytest.mark.parametrize(
    ("bbox", "after"),
    [
        (["1", "2", "10", "12.5"], [1, 2, 10, 12.5]),
        ({"x": 1, "y": 2, "width": 10, "height": 12}, [1, 2, 10, 12]),
    ],
)
def test_boxes_in_other_forms_become_four_numbers(tmp_path, bbox, after):
    content, changes = repaired(tmp_path, lambda c: annotation(c, 3).update(bbox=bbox))
    assert annotation(content, 3)["bbox"] == after and changes["bbox written as four numbers"] == 1


def test_fractions_become_pixels(tmp_path):
    def divide(content):
        for entry in content["annotations"]:
            size = (64, 48) if entry["image_id"] % 2 else (48, 64)
            entry["bbox"] = [v / s for v, s in zip(entry["bbox"], size * 2, strict=True)]

    content, _ = repaired(tmp_path, divide)
    assert annotation(content, 1)["bbox"] == pytest.approx([4, 6, 20, 10])
    assert annotation(content, 4)["bbox"] == pytest.approx([10, 12, 8, 24])


def test_sizes_are_those_of_the_files_where_the_boxes_fit(tmp_path):
    def swap(content):
        first, second = content["images"][:2]
        first.update(width=48, height=64)
        second.pop("width")

    content, changes = repaired(tmp_path, swap)
    assert [(i["width"], i["height"]) for i in content["images"][:2]] == [(64, 48), (48, 64)]
    assert changes["width and height as the file has them"] == 2 and len(content["images"]) == 4


def test_an_image_whose_boxes_do_not_fit_its_file_is_removed(tmp_path):
    def other_picture(content):
        content["images"][0].update(width=640, height=480)
        annotation(content, 1)["bbox"] = [500, 400, 50, 50]

    content, changes = repaired(tmp_path, other_picture)
    assert [i["id"] for i in content["images"]] == [2, 3, 4]
    assert {a["image_id"] for a in content["annotations"]} == {2, 3, 4}
    assert sum("removed from 'images'" in text for text in changes) == 1


def test_names_are_as_on_the_disk(tmp_path):
    (tmp_path / "images/sub").mkdir(parents=True)

    def rename(content):
        (tmp_path / "images/img_0.png").rename(tmp_path / "images/sub/img_0.png")
        content["images"][0]["file_name"] = "sub\\img_0.png"
        content["images"][1]["file_name"] = "IMG_1.PNG"

    content, changes = repaired(tmp_path, rename)
    assert [i["file_name"] for i in content["images"][:2]] == ["sub/img_0.png", "img_1.png"]
    assert changes["file_name as it is on the disk"] == 2


def test_ids_are_given_and_made_alike(tmp_path):
    def spoil(content):
        content["annotations"][1]["id"] = 1
        content["annotations"][2].pop("id")
        content["annotations"][3]["image_id"] = "2"
        content["images"].append(dict(content["images"][0]))

    content, changes = repaired(tmp_path, spoil)
    ids = [a["id"] for a in content["annotations"]]
    assert len(set(ids)) == 8 and ids[3:] == [4, 5, 6, 7, 8]
    assert content["annotations"][3]["image_id"] == 2 and len(content["images"]) == 4
    assert changes["removed from 'images': there twice"] == 1


def test_what_is_still_faulty_is_removed_and_counted(tmp_path):
    def spoil(content):
        for k, bbox in enumerate(([1, 1, 0, 5], None, [float("nan"), 1, 2, 3])):
            content["annotations"][k]["bbox"] = bbox
        content["annotations"][3]["category_id"] = 77
        content["annotations"].append("no object")
        (tmp_path / "images/img_3.png").write_bytes(b"")

    content, changes = repaired(tmp_path, spoil)
    assert [a["id"] for a in content["annotations"]] == [5, 6]
    assert (
        sum(n for text, n in changes.items() if text.startswith("removed")) == 8
    )  # 5 entries, 1 image, its 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c["categories"][1].update(id=1), "category 1: duplicate"),
        (lambda c: [i.update(file_name="no.png") for i in c["images"]], "none of its files"),
    ],
)
def test_what_can_be_meant_in_several_ways_is_refused(tmp_path, change, words):
    with pytest.raises(InputError, match=f"cannot be repaired: .*{words}"):
        repaired(tmp_path, change)


def test_the_check_itself_has_the_same_opinion(tmp_path):
    """A repair is as strict as the check before a training."""
    content = coco()
    content["annotations"][0]["bbox"] = [1, 2]
    folder, file = write(tmp_path, content)
    with pytest.raises(InputError, match=r"annotation 1 of image 1 \(img_0.png\)"):
        load_checked("set", folder, file, extent=1.0)
