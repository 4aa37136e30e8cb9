# SPDX-License-Identifier: Apache-2.0
"""Detectron's RetinaNet, rule by rule, against the rules in NumPy on random scenes."""

import numpy as np
import pytest
import torch

from detectron_libra.geometry import DETECTRON
from detectron_libra.modeling.anchors import AnchorGrid, octave_anchors
from detectron_libra.modeling.losses import SmoothL1Loss
from detectron_libra.modeling.matching import match_anchors_retinanet
from detectron_libra.modeling.postprocess import retinanet_candidates
from detectron_libra.modeling.retinanet_loss import RetinaNetRule, retinanet_losses
from detectron_libra.modeling.suppression import DetectionRule, best_detections
from tests.modeling import rules
from tests.modeling.scenes import batch, targets

CLASSES, STRIDES, MAPS, SIZES = 3, (8, 16), [(12, 16), (6, 8)], [(90, 120), (64, 128)]
#: Sizes that anchors meet well, hardly and not at all; the last of the first image is a crowd.
OBJECTS = [
    [
        (8, 8, 39, 39, 1),
        (40, 8, 71, 39, 2),
        (20, 16, 62, 60, 3),
        (100, 80, 106, 89, 3),
        (0, 0, 60, 60, 1, True),
    ],
    [(3, 2, 70, 50, 1), (4, 30, 119, 52, 2)],
]
SINGLES = [np.array([o for o in image if len(o) == 5], dtype=float) for image in OBJECTS]


@pytest.fixture(scope="module")
def outputs():
    """Raw outputs of two images on two levels, and anchors in whole pixels, so that ties are exact."""
    torch.manual_seed(12)
    bases = [octave_anchors(s, (1.0, 2.0, 0.5), scales_per_octave=1, geometry=DETECTRON) for s in STRIDES]
    logits = [torch.randn(2, 3 * CLASSES, h, w) - 1 for h, w in MAPS]
    deltas = [0.3 * torch.randn(2, 12, h, w) for h, w in MAPS]
    return logits, deltas, AnchorGrid(bases, STRIDES)(MAPS, "cpu")


def labels_of(anchors, boxes, classes):
    """(labels, argmax, positives as they are counted) of one image: 0 background, -1 not trained."""
    overlap = rules.iou(anchors, boxes)
    best, index = overlap.max(1), overlap.argmax(1)
    forced = ((overlap == overlap.max(0)) & (overlap > 0)).any(1)
    labels = np.where((best >= 0.5) | forced, classes[index], -1)
    counted = (labels >= 1).sum() + 1
    labels[best < 0.4] = 0
    return labels.astype(int), index, counted


def scene(anchors):
    """Labels (N, M), argmax (N, M) and the divisor of the batch."""
    found = [labels_of(anchors, image[:, :4], image[:, 4]) for image in SINGLES]
    return np.stack([f[0] for f in found]), np.stack([f[1] for f in found]), sum(f[2] for f in found)


def test_targets_of_anchors_and_their_number(outputs):
    """The rule: the class of the argmax from IoU 0.5 on and for every best anchor of a ground truth, ties included;
    then 0 below 0.4. The divisor is what was positive before that, plus one for each image.
    """
    anchors = torch.cat(outputs[2])
    labels, index, counted = scene(anchors.double().numpy())
    found = match_anchors_retinanet(anchors, targets(*OBJECTS), positive=0.5, negative=0.4, extent=1.0)
    np.testing.assert_array_equal(found.labels.numpy(), labels)
    np.testing.assert_array_equal(found.index.numpy()[labels > 0], index[labels > 0])
    assert found.foreground == counted > (labels > 0).sum() + len(OBJECTS), (
        "some forced positives are taken back"
    )


def test_losses(outputs):
    """The rules: focal loss, alpha (1 - p)^gamma log p and (1 - alpha) p^gamma log(1 - p), of all anchors but those
    between the thresholds; smooth L1, beta 0.11, of the positives; both sums over levels and images / the divisor.
    """
    logits, deltas, levels = outputs
    anchors = torch.cat(levels).double().numpy()
    labels, index, counted = scene(anchors)
    p = rules.sigmoid(rules.rows(logits, CLASSES))
    mine = labels[..., None] == np.arange(1, CLASSES + 1)
    focal = np.where(mine, 0.25 * (1 - p) ** 2 * np.log(p), 0.75 * p**2 * np.log(1 - p))
    cls = -focal[labels >= 0].sum() / counted
    bbox = 0
    for n, image in enumerate(SINGLES):
        row = np.flatnonzero(labels[n] > 0)
        wanted = rules.encode(anchors[row], image[index[n][row], :4])
        bbox += rules.smooth_l1(rules.rows(deltas, 4)[n][row] - wanted, 0.11).sum() / counted
    rule = RetinaNetRule(0.5, 0.4, 0.25, 2.0, CLASSES, False, DETECTRON, "detectron")
    found = targets(*OBJECTS)
    losses, _ = retinanet_losses(logits, deltas, levels, found, rule=rule, box_loss=SmoothL1Loss(beta=0.11))
    assert losses["cls"].item() == pytest.approx(cls, rel=1e-5)
    assert losses["bbox"].item() == pytest.approx(bbox, rel=1e-5)


def test_detections(outputs):
    """The rules: on each level scores above 0.05 (above 0 on the coarsest), of them the best PRE_NMS_TOP_N; decoded,
    divided by the scale, cut at the original image; NMS at IoU >= 0.5 per class; the best DETECTIONS_PER_IM.
    """
    logits, deltas, levels = outputs
    scales, best = [1.5, 2.0], 40
    b = batch(SIZES, scales=scales)
    rule = DetectionRule(0.05, 0.5, best, DETECTRON, float(rules.LARGEST_GROWTH))
    options = {"num_classes": CLASSES, "softmax": False, "pre_nms_top_n": 150}
    candidates = retinanet_candidates(logits, deltas, levels, b, rule=rule, **options)
    found = [best_detections(c, rule) for c in candidates]
    for n, meta in enumerate(b.metas):
        boxes, scores, classes = [], [], []
        for level, (x, d, anchors) in enumerate(zip(logits, deltas, levels, strict=True)):
            score = rules.sigmoid(rules.rows([x], CLASSES)[n]).ravel()
            above = np.flatnonzero(score > (0.05 if level == 0 else 0))
            above = above[np.argsort(-score[above], kind="stable")][:150]
            row = above // CLASSES
            decoded = rules.decode(rules.rows([d], 4)[n][row], anchors.double().numpy()[row])
            boxes.append(rules.clip(decoded / scales[n], meta.height, meta.width))
            scores.append(score[above])
            classes.append(above % CLASSES + 1)
        boxes, scores, classes = (np.concatenate(x) for x in (boxes, scores, classes))
        kept = np.concatenate(
            [
                np.flatnonzero(classes == c)[rules.nms(boxes[classes == c], scores[classes == c], 0.5)]
                for c in range(1, CLASSES + 1)
            ]
        )
        kept = kept[np.argsort(-scores[kept], kind="stable")][:best]
        np.testing.assert_allclose(found[n].scores, scores[kept], rtol=1e-5)
        np.testing.assert_array_equal(found[n].classes, classes[kept])
        np.testing.assert_allclose(found[n].boxes, boxes[kept], atol=1e-3)
