# SPDX-License-Identifier: Apache-2.0
"""PASCAL VOC's measure against cases worked out by hand, rule by rule."""

import dataclasses
import pickle

import numpy as np
import pytest

from detectron_libra.data.coco import VocSplit
from detectron_libra.evaluation import (
    evaluate_voc,
    log_copypaste,
    results_dict,
    summary_table,
    write_voc_files,
)

from .scenes import dataset, found, record

BOX = (10, 10, 19, 19)  # with extent 1: 10 x 10 pixels
FAR = (60, 60, 69, 69)


def voc(records, *, eleven_points=False, names=("cat",)):
    return dataclasses.replace(dataset(records, names), voc=VocSplit("test", eleven_points))


def ap(records, detections, *, eleven_points=False):
    values = evaluate_voc(voc(records, eleven_points=eleven_points), detections, extent=1.0)
    assert values["AP50"] == values["per_class"]["cat"]
    return values["AP50"]


def ten_cats():
    """Ten images with a cat each, and nine detections in the order right, wrong, right, right, wrong, ..."""
    records = [record(k, [BOX], [1]) for k in range(10)]
    pattern = [True, False, True, True, False, False, True, False, True]
    return records, {k: found((1, 0.95 - 0.1 * k, BOX if right else FAR)) for k, right in enumerate(pattern)}


def test_area_under_the_curve_since_2010():
    # right after 1, 3, 4, 7, 9 detections: precision 1/1, 2/3, 3/4, 4/7, 5/9; the best from each recall on is
    # 1, 3/4, 3/4, 4/7, 5/9, each over a tenth of the recall.
    assert ap(*ten_cats()) == pytest.approx((1 + 3 / 4 + 3 / 4 + 4 / 7 + 5 / 9) / 10, abs=1e-12)


def test_eleven_points_until_2009():
    # p(0) = p(0.1) = 1, p(0.2) = p(0.3) = 3/4, p(0.4) = 4/7, p(0.5) = 5/9, and 0 from 0.6 on, never reached.
    # In floating point 0.3 is not 3 * 0.1: that p(0.3) is 3/4, not 4/7, is the point of comparing whole numbers.
    expected = (1 + 1 + 3 / 4 + 3 / 4 + 4 / 7 + 5 / 9) / 11
    assert ap(*ten_cats(), eleven_points=True) == pytest.approx(expected, abs=1e-12)


def test_all_found_is_1_by_both_measures():
    records = [record(k, [BOX, FAR], [1, 1]) for k in range(3)]
    all_of_them = {k: found((1, 0.5, BOX), (1, 0.4, FAR)) for k in range(3)}
    assert ap(records, all_of_them) == pytest.approx(1)
    assert ap(records, all_of_them, eleven_points=True) == pytest.approx(1)
    assert ap(records, {}) == 0 and ap(records, {}, eleven_points=True) == 0


def test_iou_must_exceed_one_half():
    # 10 x 10 against its lower 10 x 5: exactly 0.5, not enough; 10 x 6: 0.6, enough.
    assert ap([record(0, [BOX], [1])], {0: found((1, 0.9, (10, 10, 19, 14)))}) == 0
    assert ap([record(0, [BOX], [1])], {0: found((1, 0.9, (10, 10, 19, 15)))}) == 1


def test_a_second_claim_of_a_box_is_wrong_even_where_another_box_is_near():
    # Both detections overlap the first box most (1 and 0.9), the second one also the other box (> 0.5).
    records = [record(0, [BOX, (10, 12, 19, 21)], [1, 1])]
    twice = {0: found((1, 0.9, BOX), (1, 0.8, (10, 10, 19, 18)))}
    assert ap(records, twice) == pytest.approx(0.5)  # recall 1/2 at precision 1


def test_the_better_score_claims_whatever_the_overlap():
    records = [record(0, [BOX], [1]), record(1, [BOX], [1])]
    rows = {0: found((1, 0.5, BOX), (1, 0.9, (10, 10, 19, 15))), 1: found((1, 0.7, BOX))}
    assert ap(records, rows) == pytest.approx(1)  # right, right, then the perfect box comes too late


def test_difficult_boxes_are_neither_found_nor_missed():
    records = [record(0, [BOX, FAR], [1, 1], [True, False])]
    rows = {0: found((1, 0.9, BOX), (1, 0.8, (10, 10, 19, 18)), (1, 0.7, FAR))}
    assert ap(records, rows) == pytest.approx(1)
    assert ap([record(0, [BOX], [1], [True])], {0: found((1, 0.9, BOX))}) is None


def test_classes_do_not_meet_and_the_mean_is_over_those_with_a_box():
    records = [record(0, [BOX, FAR], [1, 2])]
    rows = {0: found((1, 0.9, BOX), (2, 0.8, BOX), (3, 0.7, BOX))}
    values = evaluate_voc(voc(records, names=("cat", "dog", "cow")), rows, extent=1.0)
    assert values == {
        "AP50": 0.5,
        "per_class": {"cat": 1.0, "dog": 0.0, "cow": None},
        "eleven_points": False,
    }


def test_against_a_plain_loop_on_a_random_scene():
    """The definition in the module's docstring, word by word, one detection at a time."""
    from .scenes import random_scene

    data, rows = random_scene(11, images=40)
    data = dataclasses.replace(data, voc=VocSplit("test", True))
    values = evaluate_voc(data, rows, extent=0.0)
    for number, name in enumerate(data.class_names, start=1):
        assert values["per_class"][name] == pytest.approx(by_loop(data, rows, number), abs=1e-12)


def by_loop(data, rows, number):
    ranked = sorted(
        (
            (-float(score), r.image_id, k, box.tolist(), r)
            for r in data.records
            for k, (box, score, c) in enumerate(
                zip(rows[r.image_id].boxes, rows[r.image_id].scores, rows[r.image_id].classes, strict=True)
            )
            if c == number
        ),
        key=lambda row: row[:3],
    )
    positives = sum(int(((r.classes == number) & ~r.crowd).sum()) for r in data.records)
    taken, right, wrong, curve = set(), 0, 0, []
    for _, image, _, box, r in ranked:
        of_class = [g for g in range(len(r.classes)) if r.classes[g] == number]
        best = max(of_class, key=lambda g: (iou(box, r.boxes[g].tolist()), -g), default=None)
        if best is None or iou(box, r.boxes[best].tolist()) <= 0.5 or (image, best) in taken:
            wrong += 1
        elif bool(r.crowd[best]):
            continue
        else:
            right += 1
            taken.add((image, best))
        curve.append((right, right / (right + wrong)))
    at = [max((p for n, p in curve if 10 * n >= i * positives), default=0.0) for i in range(11)]
    return sum(at) / 11


def iou(a, b):
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    common = max(w, 0) * max(h, 0)
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


def test_the_files_of_the_competition(tmp_path):
    data = voc([record("b", [BOX], [1], file="x/000007.jpg"), record("a", [], [], file="000002.png")])
    rows = {"b": found((1, 0.75, BOX)), "a": found((1, 0.5, FAR))}
    files = write_voc_files(data, rows, tmp_path, extent=1.0)
    assert [f.name for f in files] == ["comp4_det_test_cat.txt", "cat_pr.pkl"]
    # inclusive pixels from 0, written from 1
    assert files[0].read_text() == (
        "000002 0.500000 61.00 61.00 70.00 70.00\n000007 0.750000 11.00 11.00 20.00 20.00\n"
    )
    curve = pickle.loads(files[1].read_bytes())
    np.testing.assert_array_equal(curve["rec"], [1, 1])
    np.testing.assert_array_equal(curve["prec"], [1, 0.5])
    assert curve["ap"] == 1
    # edges from 0 (continuous boxes): the last pixel inside a box of 10..20 is the twentieth
    write_voc_files(data, {"b": found((1, 0.75, (10, 10, 20, 20)))}, tmp_path, extent=0.0)
    assert files[0].read_text() == "000007 0.750000 11.00 11.00 20.00 20.00\n"


def test_results_table_and_log_lines_have_it_for_such_sets_only(caplog):
    data = voc([record(0, [BOX], [1])], eleven_points=True)
    rows = {0: found((1, 0.9, BOX))}
    options = {"extent": 1.0, "threshold": 0.5, "iou": 0.5}
    results = results_dict(data, rows, **options)
    assert results["scene"]["voc"]["AP50"] == 1 and results["scene"]["box"]["AP"] == pytest.approx(1)
    assert "PASCAL VOC AP50 100.0 (eleven points, as until 2009)" in summary_table(results)
    with caplog.at_level("INFO"):
        log_copypaste(results)
    assert [r.getMessage() for r in caplog.records][-3:] == [
        "copypaste: Task: voc",
        "copypaste: AP50",
        "copypaste: 1.0000",
    ]
    assert "voc" not in results_dict(data, rows, **options, voc=False)["scene"]
    assert "voc" not in results_dict(dataset(data.records), rows, **options)["scene"]
