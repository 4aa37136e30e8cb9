# SPDX-License-Identifier: Apache-2.0
"""Image-level ("concept") evaluation: does the image contain the class?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..structures import Detections
from .arrays import Flat, Id, class_keys
from .rates import Candidates, average_precision, mean_of, rates


def evaluate_concept(
    dataset: Any, detections: Mapping[Id, Detections], *, threshold: float, flat: Flat | None = None
) -> dict:
    """Precision, recall, F1 and mAP of the statement "this image contains this class".

    An image contains a class when it has a true box of it that is no crowd. The statement is made when the
    best score of a box of the class is at or above ``threshold``; where the box lies plays no part. An image
    in which a class has crowd boxes only neither confirms nor refutes the statement: the pair is left out.

    Args:
        dataset: with ``records``, ``class_names`` and ``category_ids``.
        detections: by image id; an image without an entry has no detections.
        threshold: score, 0..1.
        flat: both as arrays, where somebody has them already.

    Returns:
        See :func:`~detectron_libra.evaluation.rates.rates`; besides, ``AP`` per class and ``mAP``, its mean
        over the classes with positives. AP ranks the images by their best score of the class, one step per
        distinct score, precision not interpolated; an image with the class and no detection of it adds 0.
    """
    names = class_keys(dataset)
    candidates = image_candidates(flat or Flat(dataset, detections), num_classes=len(names) + 1)
    result = rates(candidates, names, threshold=threshold)
    for number, values in enumerate(result["per_class"].values(), start=1):
        values["AP"] = average_precision(candidates.of_class(number))
    result["mAP"] = mean_of(values["AP"] for values in result["per_class"].values())
    return result


def image_candidates(flat: Flat, *, num_classes: int) -> Candidates:
    """One candidate per image and class with a detection: its best score, right where the image has it."""
    truth, found = flat.truth, flat.found
    true_pair = truth.image * num_classes + truth.classes
    contained = np.unique(true_pair[~truth.crowd])
    undecided = np.setdiff1d(true_pair[truth.crowd], contained)

    # Detections lie best first within an image, so the first of a pair is its best.
    pair, first = np.unique(found.image * num_classes + found.classes, return_index=True)
    decided = ~np.isin(pair, undecided)
    pair, first = pair[decided], first[decided]
    return Candidates(
        image=pair // num_classes,
        classes=pair % num_classes,
        scores=found.scores[first],
        right=np.isin(pair, contained),
        positives=np.bincount(contained % num_classes, minlength=num_classes),
    )
