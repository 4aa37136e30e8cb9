# SPDX-License-Identifier: Apache-2.0
"""Metrics under image counts are those of a data set in which the images occur that often."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from detectron_libra.analysis import weighted
from detectron_libra.analysis.weighted import NAMES, weighted_metrics
from detectron_libra.evaluation.results import results_dict
from detectron_libra.evaluation.tallies import tally
from tests.evaluation.scenes import dataset, found, random_scene, record

RULES = {"extent": 0.0, "threshold": 0.4, "iou": 0.5}
BOX = ("AP", "AP50", "AP75", "APs", "APm", "APl")


def scene(seed: int):
    """A random scene in which no two scores are equal: their order is the one thing that is left open."""
    data, detections = random_scene(seed, images=20)
    rng = torch.Generator().manual_seed(seed)
    spread = {i: replace(d, scores=torch.rand(len(d), generator=rng)) for i, d in detections.items()}
    return data, spread


def repeated(data, detections, counts):
    """The same images, each as often as ``counts`` says, under names of their own."""
    records, boxes = [], {}
    for record_, count in zip(data.records, counts, strict=True):
        for copy in range(count):
            name = 1000 * copy + record_.image_id
            records.append(replace(record_, image_id=name))
            boxes[name] = detections[record_.image_id]
    return replace(data, records=records), boxes


def expected(data, detections) -> dict:
    values = results_dict(data, detections, **RULES)[data.name]
    concept, boxes = values["concept"], values["boxes_at_threshold"]
    return {
        **{name: values["box"][name] for name in BOX},
        **{f"per_class/{name}": value for name, value in values["box"]["per_class"].items()},
        "concept_precision": concept["precision"],
        "concept_recall": concept["recall"],
        "concept_mAP": concept["mAP"],
        "box_precision": boxes["precision"],
        "box_recall": boxes["recall"],
    }


def same(got: dict, row: int, want: dict) -> None:
    assert got.keys() == want.keys()
    for name, value in want.items():
        if value is None:
            assert math.isnan(got[name][row]), name
        else:
            assert got[name][row] == pytest.approx(value, abs=1e-12), name


@pytest.mark.parametrize("seed", [0, 1])
def test_every_image_once_gives_the_results_of_the_test_with_crowds_and_equal_scores(seed):
    data, detections = random_scene(seed)
    got = weighted_metrics(tally(data, detections, **RULES), np.ones((1, len(data.records))))
    assert set(NAMES) < set(got)
    same(got, 0, expected(data, detections))


@pytest.mark.parametrize("pairs_at_once", [1, 4_000_000])
def test_counts_give_the_results_of_repeated_images(monkeypatch, pairs_at_once):
    """COCO's own program on the repeated images is the judge; rows in pieces or at once change nothing."""
    monkeypatch.setattr(weighted, "PAIRS_AT_ONCE", pairs_at_once)
    data, detections = scene(3)
    counts = np.random.default_rng(0).multinomial(20, np.full(20, 0.05), size=3)
    got = weighted_metrics(tally(data, detections, **RULES), counts)
    for row in range(3):
        same(got, row, expected(*repeated(data, detections, counts[row])))


def test_what_cannot_be_computed_is_nan_in_that_row_alone():
    """The only dog is in image 2; without it there is no AP of dogs, and the mean is that of cats."""
    data = dataset([record(1, [(0, 0, 20, 20)], [1]), record(2, [(0, 0, 40, 40)], [2])])
    boxes = {1: found((1, 0.9, (0, 0, 20, 20))), 2: found((1, 0.8, (0, 0, 40, 40)))}
    got = weighted_metrics(tally(data, boxes, **RULES), np.array([[1, 1], [2, 0], [0, 0]]))
    np.testing.assert_allclose(got["per_class/dog"], [0, np.nan, np.nan])
    np.testing.assert_allclose(got["per_class/cat"], [1, 1, np.nan])
    np.testing.assert_allclose(got["AP"], [0.5, 1, np.nan])
    np.testing.assert_allclose(got["APl"], [np.nan] * 3)
    np.testing.assert_allclose(got["box_precision"], [0.5, 1, np.nan])
    np.testing.assert_allclose(got["concept_recall"], [0.5, 1, np.nan])


def test_no_detection_at_all_is_zero_recall_and_no_precision():
    data = dataset([record(1, [(0, 0, 20, 20)], [1])])
    got = weighted_metrics(tally(data, {}, **RULES), np.ones((1, 1)))
    assert got["AP"] == 0 and got["box_recall"] == 0 and np.isnan(got["box_precision"])
