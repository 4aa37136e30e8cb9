# SPDX-License-Identifier: Apache-2.0
"""Detectron's proposal network, rule by rule, against the rules in NumPy on random scenes."""

import numpy as np
import pytest
import torch

from detectron_libra.geometry import DETECTRON
from detectron_libra.modeling.anchors import AnchorGrid, base_anchors
from detectron_libra.modeling.losses import SmoothL1Loss
from detectron_libra.modeling.matching import label_anchors_rpn
from detectron_libra.modeling.proposals import ProposalRule, make_proposals
from detectron_libra.modeling.rpn_loss import RPNRule, rpn_losses
from tests.modeling import rules
from tests.modeling.scenes import targets

STRIDES, MAPS, SIZES = (8, 16), [(12, 16), (6, 8)], [(90, 120), (64, 128)]
#: Whole pixels, some on top of each other so that anchors tie; the last of the first image is a crowd.
OBJECTS = [
    [
        (8, 8, 39, 39, 1),
        (40, 8, 71, 39, 2),
        (20, 16, 62, 60, 2),
        (100, 80, 119, 89, 3),
        (0, 0, 60, 60, 1, True),
    ],
    [(3, 2, 70, 50, 1), (90, 10, 120, 60, 2)],
]
SINGLES = [np.array([o[:4] for o in image if len(o) == 5], dtype=float) for image in OBJECTS]


@pytest.fixture(scope="module")
def outputs():
    """Raw outputs of two images on two levels, and the anchors of each level."""
    torch.manual_seed(11)
    bases = [base_anchors(s, [4 * s], (0.5, 1.0, 2.0), geometry=DETECTRON) for s in STRIDES]
    logits = [2 * torch.randn(2, 3, h, w) for h, w in MAPS]
    deltas = [0.5 * torch.randn(2, 12, h, w) for h, w in MAPS]
    return logits, deltas, AnchorGrid(bases, STRIDES)(MAPS, "cpu")


def candidates(anchors, boxes, size, straddle):
    """(foreground, background, argmax) of the anchors of one image."""
    height, width = size
    inside = np.ones(len(anchors), dtype=bool)
    if straddle >= 0:
        inside = (anchors[:, :2] >= -straddle).all(1)
        inside &= (anchors[:, 2] < width + straddle) & (anchors[:, 3] < height + straddle)
    overlap = np.where(inside[:, None], rules.iou(anchors, boxes), -1)
    best = overlap.max(1)
    forced = (overlap == overlap.max(0)).any(1)
    return inside & ((best >= 0.7) | forced), inside & (best < 0.3), overlap.argmax(1)


@pytest.mark.parametrize("straddle", [-1, 0, 8])
def test_targets_of_anchors(outputs, straddle):
    """The rule: all levels together; anchors inside the image by RPN_STRADDLE_THRESH; positive from IoU 0.7 or best
    of a ground truth, ties included; background below 0.3, positive or not; crowds match nothing.
    """
    anchors = torch.cat(outputs[2])
    found = label_anchors_rpn(
        anchors,
        targets(*OBJECTS),
        torch.tensor(SIZES),
        positive=0.7,
        negative=0.3,
        straddle=straddle,
        extent=1.0,
    )
    both = 0
    for n, (boxes, size) in enumerate(zip(SINGLES, SIZES, strict=True)):
        foreground, background, index = candidates(anchors.double().numpy(), boxes, size, straddle)
        np.testing.assert_array_equal(found.foreground[n].numpy(), foreground)
        np.testing.assert_array_equal(found.background[n].numpy(), background)
        np.testing.assert_array_equal(found.index[n].numpy()[foreground], index[foreground])
        both += (foreground & background).sum()
    assert both or straddle == 0, "the scene has a best anchor that overlaps little"


def test_a_ground_truth_that_no_anchor_overlaps_makes_every_anchor_of_its_image_positive():
    """The rule: labels[anchor_by_gt_overlap == gt_to_anchor_max] = 1, and 0 equals 0. A bug, kept since it trains."""
    anchors = torch.tensor([[0.0, 0, 31, 31], [40, 40, 71, 71], [-8, 0, 23, 31]])
    far = targets([[100, 100, 120, 120, 1]], [[2, 2, 30, 30, 1]])
    found = label_anchors_rpn(
        anchors,
        far,
        torch.tensor([[200, 200], [200, 200]]),
        positive=0.7,
        negative=0.3,
        straddle=0,
        extent=1.0,
    )
    assert found.foreground.tolist() == [[True, True, False], [True, False, False]]
    assert found.background.tolist() == [[True, True, False], [False, True, False]]


@pytest.mark.parametrize("level", [False, True])
def test_losses(outputs, level):
    """The rules: objectness is a sum of binary cross entropies over 256 x images (on one level: over the anchors that
    were drawn); boxes are smooth L1, beta 1/9, over the examples of each image, then over the images.
    """
    logits, deltas, levels = outputs
    anchors, asked = torch.cat(levels), 100_000  # so that everything is drawn
    score, pred = rules.rows(logits, 1)[..., 0], rules.rows(deltas, 4)
    cls = bbox = drawn = 0
    for n, boxes in enumerate(SINGLES):
        a = anchors.double().numpy()
        foreground, background, index = candidates(a, boxes, SIZES[n], -1)
        positive = foreground & ~background  # all of the background is drawn, forced positives with it
        learned = foreground | background
        p = rules.sigmoid(score[n])
        cls += -np.log(np.where(positive, p, 1 - p))[learned].sum()
        wanted = rules.encode(a[positive], boxes[index[positive]])
        bbox += rules.smooth_l1(pred[n][positive] - wanted, 1 / 9).sum() / learned.sum() / len(SINGLES)
        drawn += learned.sum()
    rule = RPNRule(
        positive=0.7,
        negative=0.3,
        straddle=-1,
        batch_size=asked,
        fg_fraction=0.5,
        geometry=DETECTRON,
        assignment="detectron",
        mean_over_labelled=level,
    )
    found = targets(*OBJECTS)
    losses, _ = rpn_losses(
        logits, deltas, levels, found, torch.tensor(SIZES), rule=rule, box_loss=SmoothL1Loss(beta=1 / 9)
    )
    assert losses["rpn_cls"].item() == pytest.approx(cls / (drawn if level else asked * 2), rel=1e-5)
    assert losses["rpn_bbox"].item() == pytest.approx(bbox, rel=1e-5)


def proposals_of(logits, deltas, levels, size, scale, rule):
    """(boxes, scores) of one image, level by level, before the levels are joined."""
    height, width = size
    for x, d, anchors in zip(logits, deltas, levels, strict=True):
        score = rules.sigmoid(rules.rows([x], 1)[0, :, 0])
        order = np.argsort(-score, kind="stable")[: rule.pre_nms_top_n]
        boxes = rules.decode(rules.rows([d], 4)[0][order], anchors.double().numpy()[order])
        boxes, score = rules.clip(boxes, height, width), score[order]
        side = (boxes[:, 2:] - boxes[:, :2]) / scale + 1
        centre = boxes[:, :2] + (boxes[:, 2:] - boxes[:, :2] + 1) / 2
        keep = (side >= max(rule.min_size, 1)).all(1) & (centre < [width, height]).all(1)
        boxes, score = boxes[keep], score[keep]
        keep = rules.nms(boxes, score, rule.nms_threshold)[: rule.post_nms_top_n]
        yield boxes[keep], score[keep]


@pytest.mark.parametrize("per_batch", [True, False])
@pytest.mark.parametrize(("min_size", "stride"), [(0, 1), (9, 1), (0, 32)])
def test_proposals(outputs, min_size, stride, per_batch):
    """The rules: on each level the best PRE_NMS_TOP_N, decoded, cut at the image (at test time: at the padding),
    without those whose side / scale + 1 is too small or whose centre is outside, NMS at IoU >= 0.7, the best
    POST_NMS_TOP_N; then that many of all levels, in training of all images together, and no NMS again.
    """
    rule = ProposalRule(60, 25, 0.7, min_size, per_batch, DETECTRON, float(rules.LARGEST_GROWTH), stride)
    scales = [1.5, 2.0]
    boxes, scores, image = [], [], []
    for n, size in enumerate(SIZES):
        framed = [-(-side // stride) * stride for side in size]
        one = [[x[n : n + 1] for x in part] for part in outputs[:2]]
        for b, s in proposals_of(*one, outputs[2], framed, scales[n], rule):
            boxes.append(b)
            scores.append(s)
            image.append(np.full(len(s), n))
    boxes, scores, image = (np.concatenate(x) for x in (boxes, scores, image))
    order = np.argsort(-scores, kind="stable")
    chosen = order[:25] if per_batch else np.concatenate([order[image[order] == n][:25] for n in (0, 1)])
    found = make_proposals(*outputs, torch.tensor(SIZES), torch.tensor(scales), rule)
    for n in (0, 1):
        mine = chosen[image[chosen] == n]
        assert 5 < len(mine) == found.valid[n].sum()
        np.testing.assert_allclose(found.scores[n][found.valid[n]], scores[mine], rtol=1e-5)
        np.testing.assert_allclose(found.boxes[n][found.valid[n]], boxes[mine], atol=1e-3)
