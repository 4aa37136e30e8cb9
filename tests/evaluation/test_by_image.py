# SPDX-License-Identifier: Apache-2.0
"""Curves and counts by image agree with the rates of the whole set, and rank images as they should."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from detectron_libra.evaluation import evaluate_boxes
from detectron_libra.evaluation.boxes import match_dataset
from detectron_libra.evaluation.by_image import ImageCounts, count_by_image
from detectron_libra.evaluation.canvas import colour_of
from detectron_libra.evaluation.curves import ALL, precision_recall
from detectron_libra.evaluation.thumbnails import THUMBNAIL_PX, thumbnail

from .scenes import dataset, found, random_scene, record


def counts_of(rows):
    return ImageCounts(*(np.array(column) for column in zip(*rows, strict=True)))


@pytest.mark.parametrize("threshold", [0.0, 0.4, 0.8])
def test_a_curve_passes_through_the_rates_of_the_threshold(threshold):
    data, detections = random_scene(seed=5)
    rates = evaluate_boxes(data, detections, threshold=threshold, iou=0.5, extent=1.0)
    matches = match_dataset(data, detections, iou=0.5, extent=1.0)
    curves = precision_recall(matches, data.class_names, threshold=threshold)
    assert [curve.name for curve in curves] == [ALL, *data.class_names]
    for curve, values in zip(curves, [rates, *rates["per_class"].values()], strict=True):
        assert curve.at == pytest.approx((values["recall"], values["precision"]))
        assert (np.diff(curve.recall) >= 0).all() and curve.recall[-1] <= 1
        f1 = 2 * curve.recall * curve.precision / np.maximum(curve.recall + curve.precision, 1e-9)
        assert f1.max() == pytest.approx(values["best_f1"])


def test_a_hand_made_curve():
    data = dataset([record(1, [[0, 0, 10, 10], [50, 50, 60, 60]], [1, 1]), record(2)])
    right, wrong = (0, 0, 10, 10), (70, 70, 90, 90)
    detections = {1: found((1, 0.9, right), (1, 0.5, wrong)), 2: found((2, 0.6, right))}
    matches = match_dataset(data, detections, iou=0.5, extent=0.0)
    whole, cat = precision_recall(matches, ("cat", "dog"), threshold=0.95)  # no dog to find: no curve
    assert whole.recall.tolist() == [0.5, 0.5, 0.5] and whole.precision.tolist() == [
        1,
        0.5,
        pytest.approx(1 / 3),
    ]
    assert cat.precision.tolist() == [1, 0.5] and cat.positives == 2 and cat.at is None


def test_counts_of_images_add_up_to_those_of_the_set():
    data, detections = random_scene(seed=6)
    matches = match_dataset(data, detections, iou=0.5, extent=0.0)
    counts = count_by_image(matches, len(data.records), threshold=0.5)
    rates = evaluate_boxes(data, detections, threshold=0.5, iou=0.5, extent=0.0)
    right, wrong, missed = counts.right.sum(), counts.wrong.sum(), counts.missed.sum()
    assert right / (right + wrong) == pytest.approx(rates["precision"])
    assert right / (right + missed) == pytest.approx(rates["recall"])
    assert (counts.missed >= 0).all()


def test_best_and_worst_images_are_apart_and_leave_out_those_that_say_nothing():
    counts = counts_of([(1, 0, 0), (3, 0, 0), (0, 0, 0), (0, 1, 0), (0, 0, 5), (1, 1, 1)])
    best, worst = counts.ends(6)
    assert best == [1, 0] and worst == [4, 3, 5]
    assert np.isnan(counts.f1[2]) and counts.f1[5] == 0.5
    assert counts_of([(0, 1, 0)]).ends(6) == ([], [0]) and counts_of([(0, 0, 0)]).ends(6) == ([], [])
    assert counts.ends(1) == ([1], [4])


@pytest.mark.parametrize(("height", "width"), [(40, 60), (1500, 2000), (1, 900)])
def test_a_thumbnail_is_a_small_jpeg_with_the_boxes_where_they_lie(height, width):
    image = torch.full((3, height, width), 128, dtype=torch.uint8)
    box = (0.25 * width, 0.25 * height, 0.75 * width, 0.75 * height)
    nothing = (torch.zeros(0, 4), torch.zeros(0))
    jpeg, size = thumbnail(image, found((1, 0.9, box)), nothing, ("cat",), threshold=0.5, extent=0.0)
    picture = Image.open(io.BytesIO(jpeg))
    assert picture.format == "JPEG" and picture.size == size and size[0] == THUMBNAIL_PX
    if height > 1:  # below the picture is a line that says what is what
        size = (size[0], round(THUMBNAIL_PX * height / width))
        left = np.asarray(picture).astype(int)[
            int(size[1] * 0.4), int(size[0] * 0.25) - 6 : int(size[0] * 0.25) + 6
        ]
        assert np.abs(left - np.array(colour_of(1))).sum(axis=1).min() < 120
