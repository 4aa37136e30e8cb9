# SPDX-License-Identifier: Apache-2.0
"""Made-up boxes, with what makes COCO's measure slow or ambiguous in them: crowds, equal scores, rare classes."""

from __future__ import annotations

import numpy as np

from detectron_libra.evaluation import FoundBoxes, TrueBoxes

#: True boxes of an image, share of crowds among them, and share of scores with two digits only: about COCO's val2017.
TRUE_PER_IMAGE, CROWDS, EQUAL_SCORES = 7.25, 0.012, 0.3
#: Width and height of the images in pixels; logarithm of a side, its deviation, and its bounds in pixels.
WIDTH, HEIGHT = 640.0, 480.0
LOG_SIDE, LOG_SIDE_DEVIATION, SIDES = 4.0, 1.0, (4.0, 400.0)
#: Of the half of all detections that lie near a true box: deviation of a number in short sides, share with its class.
CORNER, RIGHT_CLASS = 0.12, 0.85


def random_boxes(
    images: int, detections: int, classes: int, *, seed: int = 0
) -> tuple[TrueBoxes, FoundBoxes]:
    """True boxes and detections of a data set.

    Args:
        images: N; numbers 1..N, some of which may have no box.
        detections: K, of all images.
        classes: numbers 1..classes, the k-th one as often as 1/k says.
        seed: of the random numbers.
    """
    rng = np.random.default_rng(seed)
    often = 1 / np.arange(1, classes + 1)
    often /= often.sum()
    count = round(TRUE_PER_IMAGE * images)
    truth = TrueBoxes.of(
        np.sort(rng.integers(1, images + 1, count)),
        _boxes(rng, count),
        rng.choice(classes, count, p=often) + 1,
        crowd=rng.random(count) < CROWDS,
    )
    near = detections // 2 if count else 0
    of = rng.integers(0, max(count, 1), near)
    far = detections - near
    moved = truth.boxes[of] + rng.normal(size=(near, 4)) * CORNER * truth.boxes[of, 2:].min(1, keepdims=True)
    right = rng.random(near) < RIGHT_CLASS
    other = rng.choice(classes, detections, p=often) + 1
    found = FoundBoxes.of(
        np.concatenate([truth.images[of], rng.integers(1, images + 1, far)]),
        np.concatenate([np.maximum(moved, [-np.inf, -np.inf, 1, 1]), _boxes(rng, far)]),
        np.where(np.append(right, np.zeros(far, bool)), np.append(truth.classes[of], other[near:]), other),
        _scores(rng, near, far),
    )
    return truth, found.where(np.argsort(found.images, kind="stable"))


def _boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    sides = np.exp(rng.normal(LOG_SIDE, LOG_SIDE_DEVIATION, (count, 2))).clip(*SIDES)
    corner = rng.random((count, 2)) * ([WIDTH, HEIGHT] - sides).clip(0)
    return np.concatenate([corner, sides], axis=1)


def _scores(rng: np.random.Generator, near: int, far: int) -> np.ndarray:
    scores = np.concatenate([rng.beta(3, 2, near), rng.beta(1, 3, far)])
    rounded = rng.random(near + far) < EQUAL_SCORES
    return np.where(rounded, scores.round(2), scores).astype(np.float32)
