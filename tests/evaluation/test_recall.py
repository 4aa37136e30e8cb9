# SPDX-License-Identifier: Apache-2.0
"""Average recall of proposals, against counting by hand and against a slow transcription of its rule."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from detectron_libra.evaluation.recall import NAMES, THRESHOLDS, best_covered, evaluate_recall
from detectron_libra.structures import Detections


def scene(tmp_path, objects, *, ids=(1,)):
    """A data set whose objects are (image id, class, [x, y, w, h], area or None, crowd)."""
    annotations = []
    for image, kind, box, area, crowd in objects:
        entry = {"image_id": image, "category_id": kind * 10, "bbox": box, "iscrowd": crowd}
        annotations.append(entry if area is None else entry | {"area": area})
    file = tmp_path / "truth.json"
    file.write_text(json.dumps({"annotations": annotations}))
    records = [SimpleNamespace(image_id=i) for i in ids]
    return SimpleNamespace(
        name="scene",
        annotation_file=str(file),
        records=records,
        class_names=("a", "b"),
        category_ids=(10, 20),
    )


def boxes(*rows):
    table = torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)
    return Detections(table, torch.linspace(1, 0.5, len(table)), torch.ones(len(table), dtype=torch.int64))


def test_perfect_proposals_cover_everything_and_none_nothing(tmp_path):
    data = scene(tmp_path, [(1, 1, [10, 10, 20, 20], None, 0), (1, 2, [50, 50, 100, 100], None, 0)])
    perfect = boxes([10, 10, 29, 29], [50, 50, 149, 149])
    found = evaluate_recall(data, {1: perfect}, extent=1.0)
    assert tuple(found) == NAMES and len(NAMES) == 8
    assert found["AR@100"] == found["ARs@100"] == found["ARl@1000"] == 1.0 and found["ARm@100"] is None
    assert evaluate_recall(data, {}, extent=1.0)["AR@1000"] == 0.0


def test_recall_is_the_mean_over_ten_thresholds(tmp_path):
    """Thresholds .5:.05:.95; a box of half the object reaches one of ten."""
    data = scene(tmp_path, [(1, 1, [0, 0, 20, 20], None, 0)])
    assert len(THRESHOLDS) == 10
    half = evaluate_recall(data, {1: boxes([0, 0, 20, 10])}, extent=0.0)
    assert half["AR@100"] == pytest.approx(0.1)


def test_a_proposal_covers_one_object_only(tmp_path):
    data = scene(tmp_path, [(1, 1, [0, 0, 20, 20], None, 0), (1, 1, [0, 0, 20, 20], None, 0)])
    assert evaluate_recall(data, {1: boxes([0, 0, 20, 20])}, extent=0.0)["AR@100"] == pytest.approx(0.5)


def test_stated_areas_decide_the_size_and_crowds_do_not_count(tmp_path):
    """Areas of segmentations, as in the file; [32^2, 96^2] is medium at both ends."""
    objects = [(1, 1, [0, 0, 50, 50], 1024, 0), (1, 1, [0, 0, 50, 50], 9217, 0), (1, 1, [0, 0, 9, 9], 81, 1)]
    data = scene(tmp_path, objects)
    found = evaluate_recall(data, {1: boxes([0, 0, 50, 50])}, extent=0.0)
    assert found["ARs@100"] == found["ARm@100"] == found["ARl@100"] == 1.0
    assert found["AR@100"] == pytest.approx(0.5)


def test_only_the_best_hundred_or_thousand_proposals_count(tmp_path):
    data = scene(tmp_path, [(1, 1, [0, 0, 20, 20], None, 0)])
    late = boxes(*[[90, 90, 99, 99]] * 100, [0, 0, 20, 20])
    found = evaluate_recall(data, {1: late}, extent=0.0)
    assert found["AR@100"] == 0.0 and found["AR@1000"] == 1.0


def test_per_class_is_the_mean_over_classes(tmp_path):
    objects = [(1, 1, [0, 0, 20, 20], None, 0)] + [(1, 2, [k * 30, 50, 20, 20], None, 0) for k in range(3)]
    data, found = scene(tmp_path, objects), {1: boxes([0, 0, 20, 20])}
    assert evaluate_recall(data, found, extent=0.0)["AR@100"] == pytest.approx(0.25)
    assert evaluate_recall(data, found, extent=0.0, per_class=True)["AR@100"] == pytest.approx(0.5)


@pytest.mark.parametrize("seed", range(20))
def test_the_best_covered_object_chooses_first(seed):
    """Greedy by the object covered best: its best proposal, then both are out of the game."""
    overlaps = np.random.default_rng(seed).random((seed % 6 + 1, 4)).round(2)
    expected, left = np.zeros(4), {(p, g): overlaps[p, g] for p in range(len(overlaps)) for g in range(4)}
    while left:
        p, g = max(left, key=lambda pair: left[pair])
        expected[g] = left[p, g]
        left = {pair: v for pair, v in left.items() if pair[0] != p and pair[1] != g}
    np.testing.assert_allclose(np.sort(best_covered(overlaps)), np.sort(expected))
