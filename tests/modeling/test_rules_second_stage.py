# SPDX-License-Identifier: Apache-2.0
"""Detectron's Fast R-CNN head, rule by rule, against the rules in NumPy on random scenes."""

import numpy as np
import pytest
import torch

from detectron_libra.geometry import DETECTRON
from detectron_libra.modeling.fast_rcnn_loss import fast_rcnn_losses
from detectron_libra.modeling.losses import SmoothL1Loss
from detectron_libra.modeling.matching import match_proposals
from detectron_libra.modeling.postprocess import fast_rcnn_candidates
from detectron_libra.modeling.sampling import RoISampling, sample_rois
from detectron_libra.modeling.suppression import DetectionRule, best_detections
from detectron_libra.ops.roi_align import roi_levels
from detectron_libra.structures import Proposals
from tests.modeling import rules
from tests.modeling.scenes import batch, targets

CLASSES, WEIGHTS = 4, (10.0, 10.0, 5.0, 5.0)
OBJECTS = [[(8, 8, 39, 39, 1), (20, 16, 62, 60, 3)], [(3, 2, 70, 50, 2)]]


@pytest.fixture(scope="module")
def proposals():
    """(2, 120, 4) boxes in whole pixels, half of them near an object."""
    g = np.random.default_rng(13)
    boxes = []
    for image in OBJECTS:
        near = np.array([image[k % len(image)][:4] for k in range(60)]) + g.integers(-9, 10, (60, 4))
        corner = g.integers(0, 60, (60, 2))
        boxes.append(np.concatenate([near, np.concatenate([corner, corner + g.integers(8, 60, (60, 2))], 1)]))
    return np.stack(boxes).astype(float)


def test_overlap_and_share_of_the_sample(proposals):
    """The rules: IoU with the last pixels counted; positive from 0.5 on, up to round(0.25 x BATCH_SIZE_PER_IM),
    background in [0, 0.5), neither drawn twice.
    """
    boxes = torch.from_numpy(proposals).float()
    match = match_proposals(
        boxes, torch.ones(2, 120, dtype=torch.bool), targets(*OBJECTS), threshold=0.5, extent=1.0
    )
    sample = sample_rois(match, RoISampling(64, 0.25, 0.5, 0.5, 0.0))
    for n, image in enumerate(OBJECTS):
        overlap = rules.iou(proposals[n], [o[:4] for o in image])
        np.testing.assert_allclose(match.iou[n], overlap.max(1), rtol=1e-6)
        positive = overlap.max(1) >= 0.5
        chosen = sample.index[n][sample.valid[n]].numpy()
        assert len(set(chosen)) == len(chosen) == 64 and positive.sum() > 16
        assert positive[chosen].sum() == sample.positive[n].sum() == 16
        np.testing.assert_array_equal(match.index[n].numpy()[positive], overlap.argmax(1)[positive])


@pytest.mark.parametrize("agnostic", [False, True])
def test_losses(proposals, agnostic):
    """The rules: softmax cross entropy, its mean over all sampled regions; smooth L1, beta 1, of the four deltas of
    the region's class (class 1 where regression is class-agnostic), targets times BBOX_REG_WEIGHTS, sum / regions.
    """
    torch.manual_seed(14)
    image = np.array([o[:4] for o in OBJECTS[0]], dtype=float)
    index = rules.iou(proposals[0], image).argmax(1)
    labels = np.where(np.arange(120) % 3 == 0, np.array([1, 3])[index], 0)
    logits, deltas = torch.randn(120, CLASSES), torch.randn(120, 2 if agnostic else CLASSES, 4)
    losses, _ = fast_rcnn_losses(
        logits,
        deltas,
        torch.from_numpy(proposals[0]).float(),
        torch.from_numpy(image[index]).float(),
        torch.from_numpy(labels),
        torch.ones(120, dtype=torch.bool),
        box_weights=WEIGHTS,
        extent=1.0,
        box_loss=SmoothL1Loss(beta=1.0),
    )
    e = np.exp(logits.double().numpy())
    cls = -np.log(e[np.arange(120), labels] / e.sum(1)).mean()
    row = np.flatnonzero(labels)
    pred = deltas.double().numpy()[row, 1 if agnostic else labels[row]]
    wanted = rules.encode(proposals[0][row], image[index[row]], WEIGHTS)
    assert losses["cls"].item() == pytest.approx(cls, rel=1e-5)
    assert losses["bbox"].item() == pytest.approx(rules.smooth_l1(pred - wanted, 1.0).sum() / 120, rel=1e-5)


@pytest.mark.parametrize("agnostic", [False, True])
def test_detections(proposals, agnostic):
    """The rules: regions are divided by the scale, decoded there with BBOX_REG_WEIGHTS and cut at the original image;
    for each class scores above 0.05, NMS at IoU >= 0.5; then the best DETECTIONS_PER_IM of all classes.
    """
    torch.manual_seed(15)
    scales, best = [1.5, 2.0], 30
    b = batch([(90, 120), (64, 128)], scales=scales)
    logits, deltas = torch.randn(2, 120, CLASSES), torch.randn(2, 120, 2 if agnostic else CLASSES, 4)
    rule = DetectionRule(0.05, 0.5, best, DETECTRON, float(rules.LARGEST_GROWTH))
    candidates = fast_rcnn_candidates(
        logits.flatten(0, 1).softmax(-1),
        deltas.flatten(0, 1),
        Proposals(
            torch.from_numpy(proposals).float(), torch.ones(2, 120), torch.ones(2, 120, dtype=torch.bool)
        ),
        b,
        box_weights=WEIGHTS,
        rule=rule,
    )
    found = [best_detections(c, rule) for c in candidates]
    for n, meta in enumerate(b.metas):
        e = np.exp(logits[n].double().numpy())
        probability, results = e / e.sum(1, keepdims=True), []
        for c in range(1, CLASSES):
            row = np.flatnonzero(probability[:, c] > 0.05)
            d = deltas[n].double().numpy()[row, 1 if agnostic else c]
            boxes = rules.clip(
                rules.decode(d, proposals[n][row] / scales[n], WEIGHTS), meta.height, meta.width
            )
            kept = rules.nms(boxes, probability[row, c], 0.5)
            results += [(probability[row[k], c], c, boxes[k]) for k in kept]
        results = sorted(results, key=lambda r: -r[0])[:best]
        np.testing.assert_allclose(found[n].scores, [r[0] for r in results], rtol=1e-5)
        np.testing.assert_array_equal(found[n].classes, [r[1] for r in results])
        np.testing.assert_allclose(found[n].boxes, [r[2] for r in results], atol=1e-3)


def test_the_level_of_a_region():
    """The rule: floor(4 + log2(sqrt(area) / 224 + 1e-6)), the area with the last pixels, in the resized image,
    between the finest and the coarsest level.
    """
    sides = np.array([1, 55, 56, 111, 112, 223, 224, 447, 448, 900, 5000])
    boxes = np.stack([sides * 0, sides * 0, sides - 1, sides - 1], 1)
    wanted = np.clip(np.floor(4 + np.log2(np.sqrt(rules.area(boxes)) / 224 + 1e-6)), 2, 5)
    assert wanted.tolist() == [2, 2, 2, 2, 3, 3, 4, 4, 5, 5, 5]
    options = {"canonical_scale": 224, "canonical_level": 4, "min_level": 2, "extent": 1.0}
    got = roi_levels(torch.from_numpy(boxes).float(), levels=4, **options)
    assert (got + 2).tolist() == wanted.tolist()
