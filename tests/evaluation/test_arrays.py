# SPDX-License-Identifier: Apache-2.0
"""Boxes as flat arrays: packed records and single ones give the same, and so do plain arrays of a user."""

import doctest

import numpy as np
import pytest
import torch

from detectron_libra.data.coco import Records
from detectron_libra.data.packed import Texts, pack_ids
from detectron_libra.errors import UsageError
from detectron_libra.evaluation import (
    FoundBoxes,
    TrueBoxes,
    coco,
    evaluate_arrays,
    evaluate_coco,
    results_dict,
)
from detectron_libra.evaluation.arrays import Flat
from detectron_libra.evaluation.coco_boxes import to_xywh

from .scenes import dataset, found, random_scene, record


def packed(records, order=None):
    """The same records in packed arrays."""
    records = [records[k] for k in order] if order is not None else list(records)
    counts = [len(r.classes) for r in records]
    return Records(
        pack_ids([r.image_id for r in records]),
        Texts.of([r.file for r in records]),
        torch.tensor([[r.height, r.width] for r in records]),
        torch.tensor([0, *counts]).cumsum(0),
        torch.cat([r.boxes for r in records]),
        torch.cat([r.classes for r in records]),
        torch.cat([r.crowd for r in records]),
        Texts.of([""] * len(records)),
    )


@pytest.mark.parametrize("order", [None, list(range(29, -1, -1))])
def test_packed_records_give_what_single_ones_give(order):
    data, detections = random_scene(seed=8)
    same = dataset(packed(data.records, order), data.class_names)
    arguments = {"extent": 1.0, "threshold": 0.5, "iou": 0.5}
    expected = results_dict(data, detections, **arguments)
    assert results_dict(same, detections, **arguments) == expected
    assert 0.1 < expected["scene"]["box"]["AP"] < 0.9


def test_records_that_are_packed_in_part_are_taken_one_by_one():
    """Such as those of a data set with stored proposals, whose places are called ``starts``, too."""
    data, detections = random_scene(seed=8)

    class Wrapped(list):
        starts = torch.zeros(31, dtype=torch.int64)

    wrapped = dataset(Wrapped(data.records), data.class_names)
    np.testing.assert_array_equal(Flat(wrapped, {}).truth.boxes, Flat(data, detections).truth.boxes)
    assert Flat(wrapped, {}).ids == Flat(data, detections).ids


def test_detections_are_ranked_within_an_image_and_equal_ones_keep_their_order():
    data = dataset([record(7), record(3)])
    box = (0, 0, 1, 1)
    flat = Flat(
        data,
        {
            7: found((1, 0.5, box), (2, 0.75, box), (1, 0.75, (0, 0, 2, 2))),
            3: found((2, 0.25, box)),
            99: found((1, 1, box)),
        },
    )
    assert flat.ids == [3, 7]
    assert flat.given.scores.tolist() == [0.25, 0.5, 0.75, 0.75]
    assert flat.found.scores.dtype == np.float32 and flat.found.scores.tolist() == [0.25, 0.75, 0.75, 0.5]
    assert flat.found.classes.tolist() == [2, 2, 1, 1] and flat.found.image.tolist() == [0, 1, 1, 1]


def plain(seed):
    """A scene, and its arrays as somebody else might hold them: other numbers of images, in no order."""
    data, detections = random_scene(seed)
    flat = Flat(data, detections)
    names = np.random.default_rng(seed).choice(10_000, len(flat.ids), replace=False) - 3_000
    names.sort()
    truth, given = flat.truth, flat.given
    boxes = to_xywh(truth.boxes, 0.0)
    true = TrueBoxes.of(names[truth.image], boxes, truth.classes * 10 - 20, crowd=truth.crowd)
    ours = FoundBoxes.of(names[given.image], to_xywh(given.boxes, 0.0), given.classes * 10 - 20, given.scores)
    return data, detections, true, ours


@pytest.mark.parametrize("seed", range(3))
def test_plain_arrays_give_what_a_data_set_gives(seed):
    data, detections, truth, ours = plain(seed)
    expected = evaluate_coco(data, detections, extent=0.0)
    result = evaluate_arrays(truth, ours)
    assert list(result["per_class"]) == [-10, 0, 10]
    assert list(result.pop("per_class").values()) == list(expected.pop("per_class").values())
    assert result == expected and 0.05 < result["AP"] < 0.9


def test_lists_and_tensors_will_do_and_stated_areas_count():
    columns = ([4, 4], [[0, 0, 30, 30], [50, 50, 200, 200]], [1, 1])
    result = evaluate_arrays(
        TrueBoxes.of(*columns, areas=[10, 50]),
        FoundBoxes.of(*map(torch.tensor, columns), torch.tensor([0.5, 0.75])),
    )
    assert result["APs"] == pytest.approx(1) and result["APl"] is None and result["AR1"] == pytest.approx(0.5)


def test_nothing_at_all_is_none():
    result = evaluate_arrays(TrueBoxes.of([], [], []), FoundBoxes.of([], [], [], []))
    assert result.pop("per_class") == {} and set(result.values()) == {None} and len(result) == 12


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        (([1], [[0, 0, 1]], [1], [1]), r"boxes: shape \(1, 3\), want \(K, 4\)"),
        (([1], [0, 0, 1, 1], [1], [1]), r"boxes: shape \(4,\)"),
        (([1, 2], [[0, 0, 1, 1]], [1], [1]), r"images: shape \(2,\), want \(1\)"),
        (([1], [[0, 0, 1, 1]], [[1]], [1]), r"classes: shape \(1, 1\)"),
        (([1], [[0, 0, 1, 1]], [1], []), r"scores: shape \(0,\), want \(1\)"),
        (([1], [[0, 0, 1, 1]], [1], [float("nan")]), "scores: row 0: nan is not finite"),
        (([1, 1], [[0, 0, 1, 1], [0, 0, float("inf"), 1]], [1, 1], [1, 1]), "boxes: row 1: .*is not finite"),
        (([1.5], [[0, 0, 1, 1]], [1], [1]), "images: row 0: 1.5 is not whole"),
        ((["a"], [[0, 0, 1, 1]], [1], [1]), "images: type .*, want numbers"),
        (([1], [[0, 0, 1, 1], [2]], [1], [1]), "boxes: no array"),
    ],
)
def test_columns_that_do_not_fit_are_named(columns, says):
    with pytest.raises(UsageError, match=says):
        FoundBoxes.of(*columns)


def test_the_example_of_the_documentation():
    assert doctest.testmod(coco) == (0, 3)
