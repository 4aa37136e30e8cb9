# SPDX-License-Identifier: Apache-2.0
"""A PASCAL VOC folder as a data set: pixels counted from 1, classes in order, difficult ones, the year's measure."""

import numpy as np
import pytest
from PIL import Image

from detectron_libra.builders.data import load_dataset
from detectron_libra.config import load_config
from detectron_libra.data.catalog import find_voc
from detectron_libra.data.coco import VocSplit
from detectron_libra.data.voc_set import CHALLENGE_CLASSES, load_voc
from detectron_libra.errors import InputError, UsageError
from tests.data.test_voc import write


def make(folder, split="test", objects=None):
    """Two images of 64 x 48 pixels and their annotations."""
    objects = objects or {
        "000007": [("dog", (1, 1, 64, 48), 0), ("cat", (11, 5, 20, 8), 1)],
        "000003": [("cat", (3, 3, 30, 40), 0)],
    }
    for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / part).mkdir(parents=True)
    for name, boxes in objects.items():
        write(folder / "Annotations", name, boxes)
        Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(folder / "JPEGImages" / f"{name}.jpg")
    (folder / f"ImageSets/Main/{split}.txt").write_text("".join(f"{name}  1\n" for name in objects))
    return folder


@pytest.mark.parametrize(
    ("extent", "box"), [(1.0, [10, 4, 19, 7]), (0.0, [10, 4, 20, 8])], ids=["pixels", "edges"]
)
def test_pixels_11_to_20_are_the_eleventh_to_the_twentieth(tmp_path, extent, box):
    data = load_voc("mine", str(make(tmp_path)), "test", extent=extent)
    assert data.class_names == ("cat", "dog")
    first, second = data.records
    assert [r.file.rsplit("/", 1)[1] for r in data.records] == ["000007.jpg", "000003.jpg"]
    assert first.boxes.tolist()[1] == box and first.crowd.tolist() == [False, True]
    assert first.boxes.tolist()[0] == [0, 0, 64 - extent, 48 - extent]
    assert first.classes.tolist() == [2, 1] and second.classes.tolist() == [1]


@pytest.mark.parametrize(
    ("folder", "year", "eleven_points"),
    [
        ("VOC2007", 0, True),
        ("VOC2010", 0, False),
        ("mine", 0, False),
        ("mine", 2009, True),
        ("VOC2007", 2012, False),
    ],
)
def test_the_measure_is_that_of_the_year(tmp_path, folder, year, eleven_points):
    data = load_voc("mine", str(make(tmp_path / folder)), "test", extent=1.0, year=year)
    assert data.voc == VocSplit("test", eleven_points)


def test_a_split_without_one_of_the_classes_has_the_training_sets(tmp_path):
    folder = str(make(tmp_path, objects={"a": [("dog", (1, 1, 9, 9), 0)]}))
    data = load_voc("mine", folder, "test", extent=1.0, expected=("bird", "cat", "dog"))
    assert data.class_names == ("bird", "cat", "dog") and data.records[0].classes.tolist() == [3]
    with pytest.raises(InputError, match="categories.*dog"):
        load_voc("mine", folder, "test", extent=1.0, expected=("bird", "cat"))


def test_a_declared_set_is_loaded_and_checked(tmp_path):
    make(tmp_path / "kit")
    opts = ["DATASETS.mine.VOC_DIR", str(tmp_path / "kit"), "DATASETS.mine.SPLIT", "test"]
    data = load_dataset(load_config(None, opts), "mine", training=True)
    assert data.name == "mine" and data.annotated and data.voc == VocSplit("test", False)
    (tmp_path / "kit/JPEGImages/000003.jpg").unlink()
    with pytest.raises(InputError, match=r"000003\.jpg"):
        load_dataset(load_config(None, opts), "mine")


def test_detectrons_names_have_its_place_and_the_20_classes(tmp_path, monkeypatch):
    monkeypatch.setenv("LIBRA_DATA_DIR", str(tmp_path))
    assert find_voc("voc_2007_test", {}) == (f"{tmp_path}/VOC2007/VOCdevkit2007/VOC2007", "test", 2007)
    make(tmp_path / "VOCdevkit/VOC2007")
    assert find_voc("voc_2007_test", {}) == (f"{tmp_path}/VOCdevkit/VOC2007", "test", 2007)
    data = load_dataset(load_config(None, []), "voc_2007_test")
    assert data.class_names == CHALLENGE_CLASSES and data.records[1].classes.tolist() == [8]
    assert data.voc == VocSplit("test", True)
    with pytest.raises(InputError, match=r"VOC2012/ImageSets/Main/val\.txt"):
        load_dataset(load_config(None, []), "voc_2012_val")
    json_set = {"voc_2007_test": {"IM_DIR": "images", "ANN_FN": "a.json"}}
    assert find_voc("voc_2007_test", json_set) is None and find_voc("coco_2014_train", {}) is None


@pytest.mark.parametrize(
    ("text", "says"), [(None, "no such list of images"), ("\n \n", "empty"), (b"\xff\xfe", "cannot be read")]
)
def test_a_list_of_images_that_cannot_be_used_is_named(tmp_path, text, says):
    file = make(tmp_path) / "ImageSets/Main/test.txt"
    if text is None:
        file.unlink()
    else:
        file.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(InputError, match=says) as error:
        load_voc("mine", str(tmp_path), "test", extent=1.0)
    assert str(file) in str(error.value)


def test_a_declaration_needs_folder_and_split():
    with pytest.raises(UsageError, match="SPLIT missing; write mine: {VOC_DIR: path, SPLIT: path}"):
        load_config(None, ["DATASETS.mine.VOC_DIR", "here"])
    with pytest.raises(UsageError, match=r"IM_DIR and ANN_FN do not go with VOC_DIR and SPLIT"):
        load_config(None, ["DATASETS", "{'mine': {'VOC_DIR': 'a', 'IM_DIR': 'b'}}"])
