# SPDX-License-Identifier: Apache-2.0
"""Stored proposals: Detectron's rules of which boxes of a file are used, and the way from the file into a batch."""

import numpy as np
import pytest
import torch

from detectron_libra.data.batches import Preparation, arrange, collate, merge_duplicates
from detectron_libra.data.coco import Dataset, Record
from detectron_libra.data.plan import Sample
from detectron_libra.data.proposals import with_proposals
from detectron_libra.errors import InputError


def dataset(*ids, size=(50, 100)):
    nothing = torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.bool)
    records = [Record(i, f"{i}.jpg", *size, *nothing) for i in ids]
    return Dataset("set", "", "", records, ("a",), (1,))


def content(boxes, ids, **more):
    return {"boxes": [np.array(b, dtype=np.float32).reshape(-1, 4) for b in boxes], "ids": ids, **more}


def stored(boxes, *, extent=1.0, limit=0, scores=None):
    """Rows of one image after the rules."""
    more = {} if scores is None else {"scores": [np.array(scores)]}
    found = with_proposals(dataset(7), content([boxes], [7], **more), "p.pkl", extent=extent, limit=limit)
    return found.records[0].proposals


@pytest.mark.parametrize(("extent", "right"), [(1.0, 99.0), (0.0, 100.0)])
def test_boxes_are_clipped_to_the_image(extent, right):
    """Clip to [0, W-1], [0, H-1]; without the extra pixel to [0, W], [0, H]."""
    (row,) = stored([[-5, 3, 400, 30]], extent=extent)
    assert row[:4].tolist() == [0, 3, right, 30]


def test_of_boxes_that_are_equal_in_whole_pixels_the_first_stays():
    rows = stored([[0, 0, 9.6, 9.6], [20, 0, 40, 9], [0.2, 0, 10, 10]], scores=[0.1, 0.2, 0.9])
    assert [round(r, 4) for r in rows[:, 4].tolist()] == [0.1, 0.2]


def test_sides_of_two_pixels_or_less_are_too_small():
    """Drop w <= 2 or h <= 2, where w = x2 - x1 + 1."""
    rows = stored([[0, 0, 1, 30], [0, 0, 30, 1], [0, 0, 2, 2]])
    assert rows[:, :4].tolist() == [[0, 0, 2, 2]]


def test_the_limit_takes_the_first_of_what_is_left():
    rows = stored([[0, 0, 1, 1], [0, 0, 20, 20], [30, 0, 50, 20]], limit=1)
    assert rows[:, :4].tolist() == [[0, 0, 20, 20]]


def test_images_are_found_by_their_id_whatever_the_order_of_the_file():
    """Old files name the list `indexes`; the file may have images that the set has not."""
    boxes = [[[0, 0, 10, 10]], [[5, 5, 30, 30]], [[1, 1, 9, 9]]]
    for name in ("ids", "indexes"):
        file = {"boxes": [np.array(b, dtype=np.float64) for b in boxes], name: np.array([9, 3, 4])}
        found = with_proposals(dataset(3, 9), file, "p.pkl", extent=1.0)
        assert found.records[0].proposals[0, :4].tolist() == [5, 5, 30, 30]
        assert found.records[1].proposals[0, :4].tolist() == [0, 0, 10, 10]
        assert found.records[-1].image_id == 9 and len(found.records[0:2]) == 2


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ([1], "a list"),
        ({"boxes": []}, "no 'boxes' and 'ids'"),
        ({"boxes": [np.zeros((1, 4))], "ids": [1, 2]}, "different lengths"),
        ({"boxes": [np.zeros((1, 4))], "ids": [7], "scores": []}, "different lengths"),
        ({"boxes": [np.zeros((1, 3))], "ids": [7]}, "image 7"),
        ({"boxes": [np.zeros((2, 4))], "ids": [7], "scores": [np.zeros(1)]}, "image 7"),
        ({"boxes": [np.full((1, 4), np.nan)], "ids": [7]}, "not finite"),
        ({"boxes": [[["a"] * 4]], "ids": [7]}, "image 7"),
        ({"boxes": [np.zeros((1, 4))], "ids": [8]}, "no proposals of image 7"),
        ({"boxes": [np.zeros((1, 4))], "ids": [None]}, "ids"),
    ],
)
def test_other_contents_are_refused_in_one_line_with_the_file(file, reason):
    with pytest.raises(InputError, match=reason) as error:
        with_proposals(dataset(7), file, "p.pkl", extent=1.0)
    assert str(error.value).startswith("p.pkl: ") and "\n" not in str(error.value)


def test_an_image_without_proposals_is_one_row_of_padding():
    found = with_proposals(dataset(1, 2), content([[], [[0, 0, 20, 20]]], [1, 2]), "p.pkl", extent=1.0)
    how = Preparation(1000, 0, 1.0, True, False, False)
    image = torch.zeros(3, 50, 100, dtype=torch.uint8)
    items = [arrange(image, record, Sample(k, 50), how) for k, record in enumerate(found.records)]
    assert collate(items, stride=0, with_targets=False).proposals.valid.tolist() == [[False], [True]]
    assert collate(items[:1], stride=0, with_targets=False).proposals.valid.tolist() == [[False]]


@pytest.mark.parametrize(("extent", "x1", "x2"), [(1.0, 79.0, 89.0), (0.0, 80.0, 90.0)])
def test_proposals_follow_their_image(extent, x1, x2):
    """Mirrored at W - x - 1 (or W - x), then scaled, like the ground truth."""
    found = with_proposals(dataset(1), content([[[10, 5, 20, 15]]], [1]), "p.pkl", extent=extent)
    how = Preparation(1000, 0, extent, True, False, False)
    item = arrange(torch.zeros(3, 50, 100, dtype=torch.uint8), found.records[0], Sample(0, 100, True), how)
    assert item.proposals[0, :4].tolist() == [2 * x1, 10, 2 * x2, 30]


def test_a_set_without_stored_proposals_has_none_in_its_batches():
    record = dataset(1).records[0]
    item = arrange(
        torch.zeros(3, 50, 100, dtype=torch.uint8),
        record,
        Sample(0, 50),
        Preparation(99, 0, 1.0, True, False, False),
    )
    assert collate([item], stride=0, with_targets=False).proposals is None


def test_boxes_that_share_their_cells_are_computed_as_the_first_of_them():
    """DEDUP_BOXES 1/16: boxes in pixels of the resized image, times 1/16, rounded half to even, equal or not."""
    boxes = torch.tensor([[0.0, 0, 32, 32], [7.9, 0, 32, 32], [8.1, 0, 32, 32], [0, 0, 32, 39.9]])
    assert merge_duplicates(boxes, 1 / 16)[:, 0].tolist() == [0, 0, pytest.approx(8.1), 0]
    assert torch.equal(merge_duplicates(boxes, 1 / 16)[3], boxes[0])
    assert torch.equal(merge_duplicates(boxes, 0), boxes)
    assert len(merge_duplicates(boxes[:0], 1 / 16)) == 0
