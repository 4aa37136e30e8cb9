# SPDX-License-Identifier: Apache-2.0
"""From overlapping candidates of an image to what is reported of it."""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from detectron_libra.geometry import Geometry
from detectron_libra.ops.nms import nms, soft_nms, vote_boxes
from detectron_libra.structures import Detections

LOWEST_SOFT_SCORE = 1e-4  # Detectron's callers of soft_nms


class Candidates(NamedTuple):
    """Scored boxes of one image before suppression, in any order.

    Attributes:
        boxes: (K, 4) float32, x1 y1 x2 y2 in pixels of the original image.
        scores: (K,) float32.
        classes: (K,) int64, 1..C-1.
    """

    boxes: Tensor
    scores: Tensor
    classes: Tensor


@dataclass(frozen=True)
class SoftNMS:
    """An overlapping box loses score instead of its place, see ``ops.nms.soft_nms``."""

    method: str
    sigma: float


@dataclass(frozen=True)
class BoxVoting:
    """A kept box becomes the mean of the boxes it stands for, see ``ops.nms.vote_boxes``."""

    threshold: float
    method: str
    beta: float


@dataclass(frozen=True)
class DetectionRule:
    """What counts as a detection.

    Attributes:
        score_threshold: lowest score.
        nms_threshold: IoU at which the lower-scoring box of the same class goes.
        detections_per_image: best detections kept.
        geometry: the box convention.
        box_clip: bound of the decoded log sizes.
        regress: boxes are decoded; otherwise the proposals or anchors themselves are reported.
        soft: instead of dropping boxes at ``nms_threshold``, or None.
        voting: after suppression, or None.
        keep_ties: of equal scores at the last place all are kept, not the first alone.
    """

    score_threshold: float
    nms_threshold: float
    detections_per_image: int
    geometry: Geometry
    box_clip: float
    regress: bool = True
    soft: SoftNMS | None = None
    voting: BoxVoting | None = None
    keep_ties: bool = False


def suppress(found: Candidates, rule: DetectionRule) -> Candidates:
    """The candidates that stay, class by class; with ``rule.soft`` their scores are the lowered ones."""
    extent = rule.geometry.extent
    scores = found.scores
    if rule.soft is None:
        keep = nms(*found, threshold=rule.nms_threshold, extent=extent, inclusive=rule.geometry.nms_inclusive)
    else:
        scores, keep = soft_nms(
            *found,
            method=rule.soft.method,
            sigma=rule.soft.sigma,
            overlap_threshold=rule.nms_threshold,
            score_threshold=LOWEST_SOFT_SCORE,
            extent=extent,
        )
    return Candidates(found.boxes[keep], scores[keep], found.classes[keep])


def vote(kept: Candidates, found: Candidates, voting: BoxVoting, *, extent: float) -> Candidates:
    """``kept`` after the votes of all candidates ``found``, with the scores that these had before suppression."""
    boxes, scores = vote_boxes(
        *kept, *found, threshold=voting.threshold, method=voting.method, beta=voting.beta, extent=extent
    )
    return Candidates(boxes, scores, kept.classes)


def best_detections(found: Candidates, rule: DetectionRule) -> Detections:
    """Suppression and voting per class, then the best of the image, sorted by score.

    Source: Detectron's core/test.py, box_results_with_nms_and_limit.
    """
    kept = suppress(found, rule)
    if rule.voting is not None:
        kept = vote(kept, found, rule.voting, extent=rule.geometry.extent)
    order = kept.scores.argsort(descending=True, stable=True)
    count = rule.detections_per_image
    if rule.keep_ties and len(order) > count:
        count = int((kept.scores >= kept.scores[order[count - 1]]).sum())
    return Detections(*(values[order[:count]] for values in kept))
