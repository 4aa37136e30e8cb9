# SPDX-License-Identifier: Apache-2.0
"""Image-level evaluation against hand-made counts and a loop over images and classes."""

import pytest
import torch

from detectron_libra.evaluation import evaluate_concept

from .scenes import dataset, found, random_scene, record

BOX = (0, 0, 10, 10)


def by_hand(data, detections, threshold):
    """[true positives, false positives, positives] of each class, image by image."""
    counts = {k: [0, 0, 0] for k in range(1, len(data.class_names) + 1)}
    for entry in data.records:
        for k, count in counts.items():
            mine = entry.classes == k
            contains = bool((mine & ~entry.crowd).any())
            if mine.any() and not contains:
                continue
            here = detections[entry.image_id]
            scores = here.scores[here.classes == k]
            predicted = len(scores) > 0 and scores.max() >= torch.tensor(threshold)
            count[0] += predicted and contains
            count[1] += predicted and not contains
            count[2] += contains
    return counts


def test_four_images_by_hand():
    data = dataset(
        [
            record(3, [BOX], [1]),
            record(1, [BOX, BOX], [1, 2]),
            record(2, [BOX], [2]),
            record(4),
        ]
    )
    detections = {
        1: found((1, 0.9, BOX), (1, 0.2, BOX), (2, 0.6, (50, 50, 60, 60))),
        2: found((1, 0.8, BOX)),
        3: found((1, 0.7, BOX)),
    }
    result = evaluate_concept(data, detections, threshold=0.5)
    # cat: right in 1 and 3, wrong in 2; dog: right in 1 (a box anywhere), missed in 2.
    assert (result["precision"], result["recall"], result["f1"]) == (3 / 4, 3 / 4, 3 / 4)
    cat, dog = result["per_class"]["cat"], result["per_class"]["dog"]
    assert (cat["precision"], cat["recall"], cat["positives"]) == (2 / 3, 1, 2)
    assert (dog["precision"], dog["recall"], dog["f1"]) == (1, 1 / 2, pytest.approx(2 / 3))
    assert result["macro"]["precision"] == pytest.approx((2 / 3 + 1) / 2)
    # cat, ranked: right, wrong, right; dog: right, and one that is never found.
    assert cat["AP"] == pytest.approx((1 + 2 / 3) / 2)
    assert dog["AP"] == pytest.approx(1 / 2)
    assert result["mAP"] == pytest.approx((5 / 6 + 1 / 2) / 2)


@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.95])
def test_equals_a_loop_over_images_and_classes(threshold):
    data, detections = random_scene(seed=1)
    result = evaluate_concept(data, detections, threshold=threshold)
    counts = by_hand(data, detections, threshold)
    for (right, wrong, positives), values in zip(counts.values(), result["per_class"].values(), strict=True):
        assert values["positives"] == positives
        assert values["recall"] == right / positives
        assert values["precision"] == (right / (right + wrong) if right + wrong else None)
    right, _, positives = (sum(column) for column in zip(*counts.values(), strict=True))
    assert result["recall"] == right / positives


def test_best_threshold_is_the_highest_of_the_best_scores():
    data, detections = random_scene(seed=2)
    result = evaluate_concept(data, detections, threshold=0.5)
    observed = sorted({s for d in detections.values() for s in d.scores.tolist()})
    f1 = {s: evaluate_concept(data, detections, threshold=s)["f1"] for s in observed}
    assert result["best_f1"] == max(f1.values())
    assert result["best_threshold"] == max(s for s in observed if f1[s] == result["best_f1"])


def test_equal_scores_are_one_step_of_the_ranking():
    for order in ((1, 2), (2, 1)):
        data = dataset([record(order[0], [BOX], [1]), record(order[1])], ["cat"])
        tied = {i: found((1, 0.5, BOX)) for i in order}
        assert evaluate_concept(data, tied, threshold=0.5)["mAP"] == 1 / 2


def test_an_image_with_only_a_crowd_of_the_class_is_left_out():
    data = dataset([record(1, [BOX], [1], [True]), record(2, [BOX], [1])], ["cat"])
    detections = {1: found((1, 0.9, BOX)), 2: found((1, 0.8, BOX))}
    result = evaluate_concept(data, detections, threshold=0.5)
    assert (result["precision"], result["recall"], result["per_class"]["cat"]["positives"]) == (1, 1, 1)


def test_nothing_predicted_is_recall_0_and_no_precision():
    result = evaluate_concept(dataset([record(1, [BOX], [1])]), {}, threshold=0.5)
    assert (result["precision"], result["recall"], result["f1"], result["mAP"]) == (None, 0, 0, 0)
    assert result["best_threshold"] is None and result["best_f1"] is None


def test_a_class_without_positives_has_no_recall_and_no_part_in_the_means():
    data = dataset([record(1, [BOX], [1])])
    result = evaluate_concept(data, {1: found((1, 0.9, BOX), (2, 0.9, BOX))}, threshold=0.5)
    dog = result["per_class"]["dog"]
    assert (dog["precision"], dog["recall"], dog["f1"], dog["AP"], dog["best_f1"]) == (
        0,
        None,
        None,
        None,
        None,
    )
    assert (result["mAP"], result["macro"]) == (1, {"precision": 1, "recall": 1, "f1": 1})
    assert result["precision"] == 1 / 2


def test_no_image_at_all():
    result = evaluate_concept(dataset([]), {}, threshold=0.5)
    assert (result["precision"], result["recall"], result["f1"], result["mAP"]) == (None,) * 4
    assert result["macro"] == {"precision": None, "recall": None, "f1": None}


def test_a_threshold_that_float32_rounds_down_still_counts_the_score_that_equals_it():
    data = dataset([record(1, [BOX], [1])], ["cat"])
    assert evaluate_concept(data, {1: found((1, 0.7, BOX))}, threshold=0.7)["recall"] == 1
