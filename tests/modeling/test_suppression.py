# SPDX-License-Identifier: Apache-2.0
"""Soft-NMS and box voting through the whole head, on boxes whose overlaps can be read off."""

import math
from dataclasses import replace

import pytest
import torch

from detectron_libra.geometry import CONTINUOUS, DETECTRON, GEOMETRIES
from detectron_libra.modeling.postprocess import fast_rcnn_candidates, retinanet_candidates
from detectron_libra.modeling.suppression import (
    BoxVoting,
    Candidates,
    DetectionRule,
    SoftNMS,
    best_detections,
)
from detectron_libra.structures import Proposals
from tests.modeling.scenes import batch

CLASSES = 3


def rule(geometry=CONTINUOUS, **changes):
    base = DetectionRule(
        score_threshold=0.05, nms_threshold=0.3, detections_per_image=100, geometry=geometry, box_clip=4.135
    )
    return replace(base, **changes)


def boxes_of(geometry, *sizes):
    """Boxes at the origin, 10 pixels wide and so many high; the last one lies apart."""
    boxes = torch.tensor([[0.0, 0, 10, height] for height in sizes[:-1]] + [[30.0, 30, 40, 30 + sizes[-1]]])
    boxes[:, 2:] -= geometry.extent
    return boxes


def fast_rcnn(boxes, scores, r, delta=0.0):
    """Detections of one image whose proposals have these scores in class 1, and all deltas this value."""
    probabilities = torch.zeros(len(scores), CLASSES + 1)
    probabilities[:, 1] = torch.tensor(scores)
    probabilities[:, 0] = 1 - probabilities[:, 1]
    proposals = Proposals(boxes[None], torch.ones(1, len(boxes)), torch.ones(1, len(boxes), dtype=torch.bool))
    (found,) = fast_rcnn_candidates(
        probabilities,
        torch.full((len(boxes), CLASSES + 1, 4), delta),
        proposals,
        batch([(64, 64)]),
        box_weights=(10.0, 10.0, 5.0, 5.0),
        rule=r,
    )
    return best_detections(found, r)


def retinanet(boxes, scores, r, delta=0.0):
    """The same of anchors on one level."""
    logits = torch.full((1, len(boxes), CLASSES), -100.0, dtype=torch.float64)
    logits[0, :, 0] = torch.logit(torch.tensor(scores, dtype=torch.float64))
    (found,) = retinanet_candidates(
        [logits.float().flatten(1)[..., None, None]],
        [torch.full((1, 4 * len(boxes), 1, 1), delta)],
        [boxes],
        batch([(64, 64)]),
        num_classes=CLASSES,
        softmax=False,
        pre_nms_top_n=len(boxes),
        rule=r,
    )
    # on the coarsest level every score above 0 passes
    kept = found.scores > r.score_threshold
    return best_detections(Candidates(*(values[kept] for values in found)), r)


HEADS = pytest.mark.parametrize("head", [fast_rcnn, retinanet])


@HEADS
@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
@pytest.mark.parametrize(
    ("method", "left"),
    [("linear", 0.8 * (1 - 0.5)), ("gaussian", 0.8 * math.exp(-(0.5**2) / 0.5)), ("hard", 0)],
)
def test_soft_nms_lowers_the_score_of_what_overlaps(head, geometry, method, left):
    """Detectron: "linear: weight 1-IoU if IoU>Nt; gaussian exp(-IoU^2/sigma); hard; drop below 0.0001"."""
    found = head(boxes_of(geometry, 10, 5, 10), [0.9, 0.8, 0.7], rule(geometry, soft=SoftNMS(method, 0.5)))
    wanted = [0.9, 0.7, left] if left else [0.9, 0.7]
    assert found.scores.tolist() == pytest.approx(wanted, abs=1e-5)
    assert torch.equal(found.boxes, boxes_of(geometry, 10, 5, 10)[[0, 2, 1][: len(wanted)]])


@HEADS
def test_soft_nms_takes_the_threshold_of_nms_and_leaves_what_is_at_it(head):
    """overlap_thresh = TEST.NMS, and "if IoU>Nt": an IoU of exactly Nt lowers nothing."""
    boxes = boxes_of(CONTINUOUS, 10, 5, 10)
    found = head(boxes, [0.9, 0.8, 0.7], rule(nms_threshold=0.5, soft=SoftNMS("linear", 0.5)))
    assert found.scores.tolist() == pytest.approx([0.9, 0.8, 0.7], abs=1e-5)


def test_soft_nms_keeps_scores_below_the_score_threshold():
    """Its own limit is 0.0001; SCORE_THRESH was applied before."""
    found = fast_rcnn(boxes_of(CONTINUOUS, 10, 9, 10), [0.9, 0.1, 0.7], rule(soft=SoftNMS("linear", 0.5)))
    assert found.scores.tolist() == pytest.approx([0.9, 0.7, 0.1 * (1 - 0.9)], abs=1e-5)


def test_classes_neither_lower_each_other_nor_vote():
    """Detectron's loop is over classes; each is suppressed and votes alone."""
    boxes = boxes_of(CONTINUOUS, 10, 9, 10)
    found = Candidates(boxes, torch.tensor([0.9, 0.8, 0.7]), torch.tensor([1, 2, 1]))
    r = rule(soft=SoftNMS("linear", 0.5), voting=BoxVoting(0.8, "AVG", 1.0))
    kept = best_detections(found, r)
    assert kept.scores.tolist() == pytest.approx([0.9, 0.8, 0.7])
    torch.testing.assert_close(kept.boxes, boxes)


@HEADS
@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
@pytest.mark.parametrize(
    ("method", "beta", "score"),
    [
        ("ID", 1.0, 0.9),
        ("AVG", 1.0, 0.75),
        ("IOU_AVG", 1.0, (0.9 + 0.9 * 0.6) / 1.9),
        ("TEMP_AVG", 1.0, 0.75),
        ("TEMP_AVG", 0.5, (0.81 / (0.81 + 0.01) + 0.36 / (0.36 + 0.16)) / 2),
        ("GENERALIZED_AVG", 2.0, math.sqrt((0.81 + 0.36) / 2)),
        ("QUASI_SUM", 0.0625, 1.5 / 2**0.0625),
    ],
)
def test_a_kept_box_becomes_the_mean_of_those_it_stands_for(head, geometry, method, beta, score):
    """A mean weighted by the scores of all boxes with IoU >= VOTE_TH: 0.9 and 0.6 say that y2 is 10 and 9."""
    r = rule(geometry, voting=BoxVoting(0.8, method, beta))
    found = head(boxes_of(geometry, 10, 9, 5, 10), [0.9, 0.6, 0.3, 0.5], r)
    assert len(found) == 2 and found.scores.tolist() == pytest.approx([score, 0.5], abs=1e-5)
    bottom = (0.9 * 10 + 0.6 * 9) / 1.5 - geometry.extent
    assert found.boxes[0].tolist() == pytest.approx([0, 0, 10 - geometry.extent, bottom], abs=1e-5)
    assert torch.equal(found.boxes[1], boxes_of(geometry, 10)[0])


def test_the_best_of_the_image_are_chosen_by_the_scores_after_voting():
    """The limit per image comes last: AVG makes 0.6 of 0.9 and 0.3, and 0.7 wins."""
    boxes, scores = boxes_of(CONTINUOUS, 10, 9, 10), [0.9, 0.3, 0.7]
    for method, best in (("AVG", 0.7), ("ID", 0.9)):
        r = rule(detections_per_image=1, voting=BoxVoting(0.8, method, 1.0))
        assert fast_rcnn(boxes, scores, r).scores.tolist() == pytest.approx([best])


def test_all_that_tie_for_the_last_place_are_kept_where_the_rule_says_so():
    """Detectron's R-CNN keeps scores >= the 100th best, its RetinaNet the first hundred."""
    found = Candidates(
        torch.arange(5)[:, None] * 50.0 + torch.tensor([0.0, 0, 10, 10]),
        torch.tensor([0.5, 0.9, 0.5, 0.4, 0.5]),
        torch.tensor([1, 1, 2, 1, 3]),
    )
    for keep_ties, classes in ((True, [1, 1, 2, 3]), (False, [1, 1])):
        kept = best_detections(found, rule(detections_per_image=2, keep_ties=keep_ties))
        assert kept.classes.tolist() == classes and kept.scores[0] == 0.9
    assert len(best_detections(found, rule(detections_per_image=9, keep_ties=True))) == 5


def test_votes_weigh_the_scores_from_before_soft_nms():
    """Detectron votes with dets_j, which soft_nms leaves as they were; what soft_nms made stays the score (ID)."""
    r = rule(soft=SoftNMS("linear", 0.5), voting=BoxVoting(0.8, "ID", 1.0))
    found = fast_rcnn(boxes_of(CONTINUOUS, 10, 9, 10), [0.9, 0.6, 0.7], r)
    assert found.scores.tolist() == pytest.approx([0.9, 0.7, 0.6 * (1 - 0.9)], abs=1e-5)
    assert found.boxes[[0, 2], 3].tolist() == pytest.approx([9.6, 9.6], abs=1e-5)


@HEADS
def test_what_is_not_regressed_is_the_proposal_or_the_anchor(head):
    """BBOX_REG False: "Simply repeat the boxes, once for each class"; deltas are not looked at."""
    boxes = boxes_of(DETECTRON, 10, 9, 10)
    r = rule(DETECTRON, nms_threshold=1.0)
    found = head(boxes, [0.9, 0.6, 0.7], replace(r, regress=False), delta=0.5)
    assert torch.equal(found.boxes, boxes[[0, 2, 1]])
    assert not torch.equal(head(boxes, [0.9, 0.6, 0.7], r, delta=0.5).boxes, found.boxes)


@HEADS
def test_nothing_found_stays_nothing(head):
    r = rule(soft=SoftNMS("gaussian", 0.5), voting=BoxVoting(0.8, "AVG", 1.0))
    assert len(head(boxes_of(CONTINUOUS, 10, 9, 10), [0.01, 0.02, 0.03], r)) == 0
