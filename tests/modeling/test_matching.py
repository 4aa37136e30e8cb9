# SPDX-License-Identifier: Apache-2.0
"""Matching: mmdetection's assigner, Detectron's counts, crowds, and images without ground truth."""

import pytest
import torch

from detectron_libra.modeling.assignment import assign
from detectron_libra.modeling.matching import label_anchors_rpn, match_anchors_retinanet, match_proposals
from detectron_libra.structures import Targets
from tests import golden

#: Options of the reference that ours does not offer.
LEFT_OUT = {
    "rpn_ignore_gtwise": "regions are compared with boxes by the box's area only",
    "notall": "all boxes that tie for the best of a ground truth are taken",
}


def targets(*images, crowd=()):
    """Per image a list of (box, class); ``crowd`` names (image, row)."""
    size = max(map(len, images))
    boxes, classes = torch.zeros(len(images), size, 4), torch.zeros(len(images), size, dtype=torch.int64)
    for n, rows in enumerate(images):
        for g, (box, label) in enumerate(rows):
            boxes[n, g], classes[n, g] = torch.tensor(box, dtype=torch.float32), label
    crowds = torch.zeros_like(classes, dtype=torch.bool)
    for n, g in crowd:
        crowds[n, g] = True
    return Targets(boxes, classes, crowds)


def boxes(*rows):
    return torch.tensor(rows, dtype=torch.float32)


@pytest.mark.parametrize(
    "tag", ["rpn", "rcnn", "rcnn_v1", "retina", "rpn_ignore", "rpn_ignore_gtwise", "notall", "negrange"]
)
def test_assign_equals_mmdetection(tag):
    if tag in LEFT_OUT:
        pytest.skip(f"not offered: {LEFT_OUT[tag]}")
    data, meta = golden.load("max_iou_assigner")
    case = next(c for c in meta["parameters"]["cases"] if c["prefix"] == tag)
    data = {k: torch.from_numpy(v) for k, v in data.items()}
    regions, labels = data["gts"], data["labels"] + 1
    crowd = torch.zeros(len(regions), dtype=torch.bool)
    if case["uses_ignore"]:
        regions = torch.cat((regions, data["ignore"]))
        labels = torch.cat((labels, torch.ones(3, dtype=torch.int64)))
        crowd = torch.arange(len(regions)) >= len(data["gts"])
    negative = case["neg_iou_thr"]
    found = assign(
        data["priors"],
        Targets(regions[None], labels[None], crowd[None]),
        positive=case["pos_iou_thr"],
        negative=tuple(negative) if isinstance(negative, list) else negative,
        min_positive=case["min_pos_iou"],
        low_quality=case["match_low_quality"],
        crowd_threshold=case["ignore_iof_thr"] if case["uses_ignore"] else None,
        crowd_first=True,
        extent=0,
    )
    ours = torch.where(found.state == 1, found.index + 1, found.state)[0]
    assert ours.equal(data[f"{tag}_gt_inds"])
    overlap = data[f"{tag}_max_overlaps"]
    torch.testing.assert_close(found.iou[0][overlap >= 0], overlap[overlap >= 0])


GT = [0, 0, 99, 99]
# IoU with GT: 1, 0.6, 0.45, 0.2, 0.
ANCHORS = boxes(GT, [0, 0, 99, 59], [0, 0, 99, 44], [0, 0, 99, 19], [300, 300, 310, 310])


def retinanet(gt, anchors=ANCHORS, **options):
    return match_anchors_retinanet(anchors, gt, positive=0.5, negative=0.4, extent=1, **options)


def test_retinanet_thresholds():
    """The rule: positive from 0.5, background below 0.4, the rest does not train; the divisor: one more per image."""
    found = retinanet(targets([(GT, 7)]))
    assert found.labels.tolist() == [[7, 7, -1, 0, 0]]
    assert found.index[0, :2].tolist() == [0, 0]
    assert found.foreground == 3  # two positives, and one for the image


@pytest.mark.parametrize(("best", "label"), [(2, 7), (3, 0)])
def test_detectrons_forced_positives_survive_above_the_negative_threshold_only(best, label):
    """The rule: best anchors of a ground truth are made positive, then every anchor below 0.4 is set to 0."""
    found = retinanet(targets([(GT, 7)]), ANCHORS[best:])
    assert found.labels[0, 0] == label
    assert found.foreground == 2  # counted before it was taken back


def test_detectrons_forced_positive_takes_the_class_of_its_own_best():
    """The rule: a forced positive gets the class of its own argmax, not of the ground truth that forced it."""
    # The only anchor overlaps the first one most, but is the best of the second one too.
    gt = targets([([0, 0, 99, 89], 3), ([0, 0, 99, 49], 5)])
    assert retinanet(gt, boxes(GT)).labels.tolist() == [[3]]
    found = retinanet(gt, boxes(GT), rule="continuous")
    assert found.labels.tolist() == [[5]]
    assert found.index.tolist() == [[1]]


def test_continuous_forced_positives_survive_at_any_overlap():
    found = retinanet(targets([(GT, 7)]), ANCHORS[3:], rule="continuous")
    assert found.labels.tolist() == [[7, 0]]
    assert found.foreground == 1


@pytest.mark.parametrize(("rule", "foreground"), [("detectron", 2), ("continuous", 1)])
@pytest.mark.parametrize("rows", [0, 2])
def test_images_without_ground_truth_are_background(rule, foreground, rows):
    empty = Targets(
        torch.zeros(2, rows, 4),
        torch.zeros(2, rows, dtype=torch.int64),
        torch.zeros(2, rows, dtype=torch.bool),
    )
    found = retinanet(empty, rule=rule)
    assert (found.labels == 0).all()
    assert found.foreground == foreground
    rpn = label_anchors_rpn(
        ANCHORS,
        empty,
        torch.tensor([[500, 500]] * 2),
        positive=0.7,
        negative=0.3,
        straddle=0,
        extent=1,
        rule=rule,
    )
    assert rpn.background.all()
    assert not rpn.foreground.any()
    assert (
        match_proposals(ANCHORS.repeat(2, 1, 1), rpn.background, empty, threshold=0.5, extent=1).iou == 0
    ).all()


def test_images_are_matched_apart_and_padding_matches_nothing():
    gt = targets([(GT, 7), ([300, 300, 310, 310], 2)], [(GT, 4)])
    assert retinanet(gt).labels.tolist() == [[7, 7, -1, 0, 2], [4, 4, -1, 0, 0]]


@pytest.mark.parametrize("rule", ["detectron", "continuous"])
def test_crowds_are_no_background_where_asked_and_never_positives(rule):
    gt = targets([(GT, 7), ([290, 290, 330, 330], 7), (GT, 1)], crowd=[(0, 1), (0, 2)])
    parity = retinanet(gt, rule=rule).labels
    assert parity.tolist() == [[7, 7, -1, 0, 0]]
    ignoring = retinanet(gt, rule=rule, crowd_threshold=0.5).labels
    assert ignoring.tolist() == [[7, 7, -1, -1, -1]]


def rpn_match(gt, anchors, sizes, **options):
    settings = {"positive": 0.7, "negative": 0.3, "straddle": 0.0, "extent": 1} | options
    return label_anchors_rpn(anchors, gt, torch.tensor(sizes), **settings)


def test_rpn_best_anchor_may_be_background_too_as_in_detectron():
    """The rule: background candidates have a largest IoU < 0.3 whatever their label."""
    gt = targets([(GT, 1)])
    found = rpn_match(gt, ANCHORS[3:], [[500, 500]])
    assert found.foreground.tolist() == [[True, False]]
    assert found.background.tolist() == [[True, True]]
    other = rpn_match(gt, ANCHORS[3:], [[500, 500]], rule="continuous")
    assert other.foreground.tolist() == [[True, False]]
    assert other.background.tolist() == [[False, True]]
    weak = rpn_match(gt, ANCHORS[3:], [[500, 500]], rule="continuous", min_positive=0.3)
    assert not weak.foreground.any()


def test_rpn_anchors_that_leave_the_image_take_no_part():
    """The rule: x1, y1 >= -T, x2 < W + T, y2 < H + T for T = RPN_STRADDLE_THRESH >= 0; a negative T keeps all."""
    gt = targets([(GT, 1)], [(GT, 1)])
    anchors = boxes([-1, 0, 99, 99], [0, 0, 99, 79], [0, 0, 49, 9])
    found = rpn_match(gt, anchors, [[100, 100], [60, 100]])
    assert found.foreground.tolist() == [[False, True, False], [False, False, True]]
    assert found.background.tolist() == [[False, False, True], [False, False, True]]
    every = rpn_match(gt, anchors, [[100, 100], [60, 100]], straddle=-1)
    assert every.foreground.tolist() == [[True, True, False]] * 2
    near = rpn_match(gt, anchors, [[100, 100], [60, 100]], straddle=2)
    assert near.foreground[0].tolist() == [True, True, False]


def test_rpn_crowds_are_no_background_where_asked():
    gt = targets([(GT, 1), ([290, 290, 330, 330], 1)], crowd=[(0, 1)])
    assert rpn_match(gt, ANCHORS, [[500, 500]]).background.tolist() == [[False, False, False, True, True]]
    found = rpn_match(gt, ANCHORS, [[500, 500]], crowd_threshold=0.5)
    assert found.background.tolist() == [[False, False, False, True, False]]


def test_proposals_in_padding_or_crowds_cannot_be_sampled():
    gt = targets([(GT, 7), ([0, 0, 330, 330], 7)], crowd=[(0, 1)])
    valid = torch.tensor([[True, True, True, True, False]])
    options = {"threshold": 0.5, "extent": 1, "rule": "continuous"}
    plain = match_proposals(ANCHORS[None], valid, gt, **options)
    assert plain.iou[0].tolist() == pytest.approx([1, 0.6, 0.45, 0.2, -1])
    found = match_proposals(ANCHORS[None], valid, gt, **options, crowd_threshold=0.5)
    assert found.iou[0].tolist() == pytest.approx([1, 0.6, -1, -1, -1])
    assert found.num_gt == 2


def test_detectrons_proposals_take_the_class_of_a_crowd_and_the_box_of_a_single_object():
    """Class of a proposal = argmax over ground truth INCLUDING crowd; regression target = best non-crowd one."""
    gt = targets([(GT, 7), ([300, 0, 399, 99], 9)], crowd=[(0, 1)])
    boxes = torch.tensor([[GT, [300, 0, 399, 79], [300, 0, 399, 20]]], dtype=torch.float32)
    found = match_proposals(boxes, torch.ones(1, 3, dtype=torch.bool), gt, threshold=0.5, extent=1)
    assert found.index.tolist() == [[0, 1, 1]] and found.box_index.tolist() == [[0, 0, 0]]
    assert found.iou[0].tolist() == pytest.approx([1, 0.8, 0.21])


def test_detectrons_filter_takes_every_stored_proposal_out_of_a_crowd():
    """Crowd filter: more than 0.7 of a proposal's area inside a crowd => overlap -1, whatever it matches."""
    gt = targets([(GT, 7), ([0, 0, 399, 399], 9)], crowd=[(0, 1)])
    boxes = torch.tensor([[GT, [380, 380, 479, 479]]], dtype=torch.float32)
    valid = torch.ones(1, 2, dtype=torch.bool)
    found = match_proposals(boxes, valid, gt, threshold=0.5, extent=1, crowd_threshold=0.7)
    assert found.iou[0, 0] == -1 and 0 <= found.iou[0, 1] < 0.1


def test_unknown_rule():
    with pytest.raises(ValueError, match="rule"):
        retinanet(targets([(GT, 1)]), rule="best")
