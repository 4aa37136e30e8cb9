# SPDX-License-Identifier: Apache-2.0
"""Box precision and recall against hand-made counts and a greedy loop."""

import time

import pytest
import torch

from detectron_libra.evaluation import boxes, evaluate_boxes
from detectron_libra.structures import Detections

from .scenes import dataset, found, random_scene, record


def iou(a, b, extent, of_first=False):
    side = [min(a[k + 2], b[k + 2]) - max(a[k], b[k]) + extent for k in (0, 1)]
    common = max(side[0], 0) * max(side[1], 0)
    area = [(c[2] - c[0] + extent) * (c[3] - c[1] + extent) for c in (a, b)]
    return common / (area[0] if of_first else area[0] + area[1] - common)


def greedy(data, detections, *, threshold, least, extent):
    """[true positives, false positives, positives] of each class, one box after the other."""
    counts = {k: [0, 0, 0] for k in range(1, len(data.class_names) + 1)}
    for entry in data.records:
        here = detections[entry.image_id]
        for k, count in counts.items():
            mine = entry.classes == k
            free = entry.boxes[mine & ~entry.crowd].double().tolist()
            crowds = entry.boxes[mine & entry.crowd].double().tolist()
            count[2] += len(free)
            chosen = [i for i in range(len(here)) if here.classes[i] == k and here.scores[i] >= threshold]
            for i in sorted(chosen, key=lambda i: -here.scores[i].item()):
                box = here.boxes[i].double().tolist()
                value, best = max([(iou(box, b, extent), j) for j, b in enumerate(free)], default=(0, 0))
                if value >= least:
                    free.pop(best)
                    count[0] += 1
                elif not any(iou(box, c, extent, of_first=True) >= least for c in crowds):
                    count[1] += 1
    return counts


@pytest.mark.parametrize("extent", [0.0, 1.0])
@pytest.mark.parametrize("threshold", [0.0, 0.6])
@pytest.mark.parametrize("pairs_at_once", [7, 4_000_000])
def test_equals_a_greedy_loop(monkeypatch, extent, threshold, pairs_at_once):
    monkeypatch.setattr(boxes, "PAIRS_AT_ONCE", pairs_at_once)
    data, detections = random_scene(seed=3)
    result = evaluate_boxes(data, detections, threshold=threshold, iou=0.5, extent=extent)
    counts = greedy(data, detections, threshold=threshold, least=0.5, extent=extent)
    assert sum(right for right, _, _ in counts.values()) > 20
    for (right, wrong, positives), values in zip(counts.values(), result["per_class"].values(), strict=True):
        assert values["positives"] == positives
        assert values["recall"] == right / positives
        assert values["precision"] == right / (right + wrong)
    right, wrong, positives = (sum(column) for column in zip(*counts.values(), strict=True))
    assert result["f1"] == 2 * right / (right + wrong + positives)
    assert result["iou"] == 0.5


def test_a_box_is_found_once_and_the_higher_score_has_it():
    data = dataset([record(1, [(0, 0, 10, 10)], [1])], ["cat"])
    twice = {1: found((1, 0.6, (0, 0, 10, 10)), (1, 0.9, (0, 0, 10, 9)))}
    result = evaluate_boxes(data, twice, threshold=0.5, iou=0.5, extent=0.0)
    assert (result["precision"], result["recall"]) == (1 / 2, 1)
    assert result["best_threshold"] == pytest.approx(0.9) and result["best_f1"] == 1


def test_a_detection_takes_the_next_best_box_where_its_best_is_taken():
    data = dataset([record(1, [(0, 0, 10, 10), (0, 0, 10, 8)], [1, 1])], ["cat"])
    same = {1: found((1, 0.9, (0, 0, 10, 10)), (1, 0.8, (0, 0, 10, 10)))}
    assert evaluate_boxes(data, same, threshold=0.5, iou=0.5, extent=0.0)["recall"] == 1


@pytest.mark.parametrize("order", [1, -1])
def test_a_detection_takes_the_box_with_the_highest_iou(order):
    data = dataset([record(1, [(0, 0, 10, 10), (0, 0, 10, 8)][::order], [1, 1])], ["cat"])
    # The second one overlaps only the smaller box enough, which the first one must not take.
    two = {1: found((1, 0.9, (0, 0, 10, 10)), (1, 0.8, (0, 0, 10, 4)))}
    assert evaluate_boxes(data, two, threshold=0.5, iou=0.5, extent=0.0)["recall"] == 1


def test_iou_equal_to_the_threshold_is_enough():
    data = dataset([record(1, [(0, 0, 10, 10)], [1])], ["cat"])
    half = {1: found((1, 0.9, (0, 0, 10, 5)))}
    assert evaluate_boxes(data, half, threshold=0.5, iou=0.5, extent=0.0)["recall"] == 1
    assert evaluate_boxes(data, half, threshold=0.5, iou=0.51, extent=0.0)["recall"] == 0


def test_another_class_or_image_does_not_match():
    box = (0, 0, 10, 10)
    data = dataset([record(1, [box], [1]), record(2)])
    elsewhere = {1: found((2, 0.9, box)), 2: found((1, 0.9, box))}
    result = evaluate_boxes(data, elsewhere, threshold=0.5, iou=0.5, extent=0.0)
    assert (result["precision"], result["recall"], result["f1"]) == (0, 0, 0)


def test_a_crowd_ignores_what_lies_in_it_and_is_nothing_to_find():
    data = dataset([record(1, [(0, 0, 50, 50)], [1], [True])], ["cat"])
    inside = {1: found((1, 0.9, (0, 0, 10, 10)), (1, 0.8, (20, 20, 30, 30)))}
    result = evaluate_boxes(data, inside, threshold=0.5, iou=0.5, extent=0.0)
    assert (result["precision"], result["recall"], result["best_threshold"]) == (None, None, None)


def test_empty_boxes_of_an_untrained_detector_match_nothing():
    data = dataset([record(1, [(0, 0, 10, 10)], [1])], ["cat"])
    flat = {1: found((1, 0.9, (5, 5, 5, 5)), (1, 0.8, (9, 9, 2, 2)))}
    assert evaluate_boxes(data, flat, threshold=0.5, iou=0.5, extent=0.0)["precision"] == 0


def test_no_detection_and_no_image():
    result = evaluate_boxes(dataset([record(1, [(0, 0, 9, 9)], [1])]), {}, threshold=0.5, iou=0.5, extent=0.0)
    assert (result["precision"], result["recall"], result["f1"], result["best_f1"]) == (None, 0, 0, None)
    result = evaluate_boxes(dataset([]), {}, threshold=0.5, iou=0.5, extent=0.0)
    assert (result["precision"], result["recall"], result["f1"]) == (None, None, None)


@pytest.mark.slow
def test_five_thousand_images_take_seconds():
    records, detections = [], {}
    rng = torch.Generator().manual_seed(0)
    for number in range(5000):
        corner = torch.rand(107, 2, generator=rng) * 400
        every = torch.cat([corner, corner + 100], dim=1)
        labels = torch.randint(1, 81, (107,), generator=rng)
        records.append(record(number, every[:7].tolist(), labels[:7].tolist()))
        detections[number] = Detections(every[7:], torch.rand(100, generator=rng), labels[7:])
    start = time.perf_counter()
    data = dataset(records, [str(k) for k in range(80)])
    evaluate_boxes(data, detections, threshold=0.5, iou=0.5, extent=1.0)
    assert time.perf_counter() - start < 20
