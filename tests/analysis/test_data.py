# SPDX-License-Identifier: Apache-2.0
"""The tables of a data set: every number counted by hand on a few boxes, and again for every source."""

import pytest

from detectron_libra.analysis.data import describe_boxes, reading_faults, suspicious_boxes
from detectron_libra.analysis.inventory import told_apart
from tests.analysis.scenes import dataset, inventory

STOCK = ("stock", 100, 200, [(1, 0, 0, 20, 20), (1, 100, 0, 40, 10), (2, 50, 50, 100, 50)])
PHONE = ("phone", 200, 200, [(1, 10, 10, 64, 64)])
EMPTY = ("phone", 100, 100, [])


def test_boxes_and_images_are_counted_by_class():
    found = describe_boxes(inventory(STOCK, PHONE, EMPTY))
    assert (found["images"], found["boxes"]) == (3, 4)
    assert found["classes"] == {
        "a": {"boxes": 3, "images": 2, "share": 0.75},
        "b": {"boxes": 1, "images": 1, "share": 0.25},
        "c": {"boxes": 0, "images": 0, "share": 0.0},
    }
    assert found["images_without_boxes"] == {"count": 1, "share": pytest.approx(1 / 3, rel=1e-4)}


def test_sizes_are_those_of_the_original_and_those_the_network_sees():
    found = describe_boxes(inventory(STOCK, PHONE, side=50))["size"]
    assert found["side_px"]["min"] == 20 and found["side_px"]["max"] == pytest.approx(5000**0.5, rel=1e-4)
    # 200 x 200 becomes 50 x 50, so that 64 pixels are 16; 100 x 200 is halved
    assert found["side_px_at_input"]["max"] == pytest.approx(5000**0.5 / 2, rel=1e-4)
    assert found["side_px_at_input"]["min"] == 10
    assert (found["small"], found["medium"], found["large"]) == (0.5, 0.5, 0.0)


def test_shapes_fall_into_their_bins():
    found = describe_boxes(inventory(STOCK, PHONE))["aspect"]
    bins = dict(zip(found["histogram"]["edges"], found["histogram"]["counts"], strict=False))
    assert {edge: count for edge, count in bins.items() if count} == {1.0: 2, 2.0: 1, 4.0: 1}
    assert found["width_over_height"]["max"] == 4


def test_crowding_counts_boxes_per_image_and_boxes_that_overlap():
    # IoU of two squares of side 10 that are shifted by 5 is 1 / 3, shifted by 8 it is 1 / 9
    image = ("", 100, 100, [(1, 0, 0, 10, 10), (2, 5, 0, 10, 10), (1, 50, 50, 10, 10), (1, 58, 50, 10, 10)])
    found = describe_boxes(inventory(image, EMPTY))["crowding"]
    assert found["overlapping"] == 0.5 and found["mean_boxes_per_image"] == 2
    assert dict(zip(found["histogram"]["edges"], found["histogram"]["counts"], strict=False))[0] == 1


def test_every_table_is_split_by_source():
    found = describe_boxes(inventory(STOCK, PHONE, EMPTY))
    assert list(found["by_source"]) == ["phone", "stock"]
    phone, stock = found["by_source"].values()
    assert (phone["images"], phone["boxes"], phone["images_without_boxes"]["count"]) == (2, 1, 1)
    assert stock["classes"]["b"] == {"boxes": 1, "images": 1, "share": pytest.approx(1 / 3, rel=1e-4)}
    assert set(phone) == set(found) - {"by_source"}


def test_images_without_a_source_stand_apart_only_where_others_have_one():
    assert describe_boxes(inventory((None, *STOCK[1:])))["by_source"] == {}
    assert list(describe_boxes(inventory((None, *STOCK[1:]), PHONE))["by_source"]) == [
        "(not stated)",
        "phone",
    ]


def test_suspicious_boxes_are_named_by_image_class_and_corners():
    image = ("", 100, 100, [(1, 0, 0, 99, 99), (2, 10, 10, 2, 30), (3, 40, 40, 20, 20), (1, 40, 40, 20, 19)])
    kinds = {one["kind"].split(":")[0]: one for one in suspicious_boxes(inventory(image))}
    assert kinds["more than 10 times as long as wide"]["examples"] == ["set: 1: b [10, 10, 12, 40]"]
    assert kinds["a side under 4 pixels at the input size"]["count"] == 1
    assert kinds["covers 95% of the image or more"]["examples"] == ["set: 1: a [0, 0, 99, 99]"]
    assert kinds["overlaps another box with IoU 0.9 or more"]["count"] == 2
    assert suspicious_boxes(inventory(PHONE)) == []


def test_what_the_reader_left_out_is_told_too():
    found = reading_faults([dataset(("", 50, 50, [(1, 0, 0, 0, 9), (1, 1, 1, 9, 9)]))])
    assert [(one["kind"], one["count"]) for one in found] == [
        ("left out by the reader: zero width or height", 1)
    ]
    assert found[0]["examples"] == ["set: 1"]


def test_crowds_are_no_boxes_and_no_boxes_at_all_give_no_numbers():
    found = describe_boxes(inventory(("", 50, 50, [(1, 1, 1, 20, 20, True)])))
    assert (found["boxes"], found["crowds"], found["images_without_boxes"]["count"]) == (0, 1, 1)
    assert found["size"]["side_px"]["p50"] is None and found["crowding"]["overlapping"] is None


def test_classes_of_one_name_are_told_apart():
    assert told_apart(("a", "b", "a")) == ("a (1)", "b", "a (3)")
