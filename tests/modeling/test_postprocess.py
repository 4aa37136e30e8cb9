# SPDX-License-Identifier: Apache-2.0
"""Detections: thresholds, NMS per class, decoding and clipping in pixels of the original image."""

from dataclasses import replace

import pytest
import torch

from detectron_libra.geometry import CONTINUOUS, DETECTRON, GEOMETRIES
from detectron_libra.modeling.box_coding import decode
from detectron_libra.modeling.postprocess import fast_rcnn_candidates, retinanet_candidates
from detectron_libra.modeling.suppression import Candidates, DetectionRule, best_detections
from detectron_libra.structures import Proposals
from tests.modeling.scenes import batch

CLASSES = 3
WEIGHTS = (10.0, 10.0, 5.0, 5.0)


def rule(geometry=CONTINUOUS, **changes):
    base = DetectionRule(
        score_threshold=0.05, nms_threshold=0.5, detections_per_image=100, geometry=geometry, box_clip=4.135
    )
    return replace(base, **changes)


def logit(p):
    return torch.logit(torch.as_tensor(p, dtype=torch.float64)).float()


def retinanet(scores, anchors, *, r=None, b=None, top_n=1000, softmax=False, deltas=None):
    """Levels of one row: scores per level (N, A, C'), anchors per level (A, 4)."""
    logits = [(logit(s) if not softmax else s).flatten(1)[..., None, None] for s in scores]
    deltas = deltas or [torch.zeros(len(s), 4 * s.shape[1], 1, 1) for s in scores]
    r = r or rule()
    found = retinanet_candidates(
        logits,
        deltas,
        anchors,
        b or batch([(64, 64)] * len(scores[0])),
        num_classes=CLASSES,
        softmax=softmax,
        pre_nms_top_n=top_n,
        rule=r,
    )
    return [best_detections(candidates, r) for candidates in found]


BOXES = torch.tensor([[0.0, 0, 20, 20], [30, 30, 60, 60]])


def test_the_coarsest_level_has_no_threshold_in_detectron():
    """Detectron's test_retinanet.py: any score above 0 passes there; in the other frameworks none does."""
    low = torch.full((1, 2, CLASSES), 0.01)
    assert len(retinanet([low, low], [BOXES, BOXES + 2])[0]) == 0
    (found,) = retinanet([low, low], [BOXES, BOXES + 2], r=rule(DETECTRON))
    assert len(found) == 2 * CLASSES
    torch.testing.assert_close(found.boxes.unique(dim=0), BOXES + 2)


def test_classes_are_counted_from_one_and_come_sorted_by_score():
    scores = torch.tensor([[[0.2, 0.9, 0.01], [0.5, 0.02, 0.7]]])
    (found,) = retinanet([scores, torch.full((1, 1, CLASSES), 1e-9)], [BOXES, BOXES[:1] + 90], top_n=4)
    assert found.classes[:4].tolist() == [2, 3, 1, 1] and found.classes.dtype == torch.int64
    torch.testing.assert_close(found.scores[:4], torch.tensor([0.9, 0.7, 0.5, 0.2]))
    torch.testing.assert_close(found.boxes[:4], BOXES[[0, 1, 1, 0]])


def test_top_n_is_per_level_over_anchors_and_classes():
    """The rule: PRE_NMS_TOP_N best of anchor x class on each level."""
    scores = torch.tensor([[[0.6, 0.9, 0.8], [0.7, 0.1, 0.1]]])
    (found,) = retinanet([scores, scores], [BOXES, BOXES + 100], top_n=2, b=batch([(256, 256)]))
    assert found.scores.tolist() == pytest.approx([0.9, 0.9, 0.8, 0.8])


def test_softmax_leaves_the_background_out():
    logits = torch.tensor([[[5.0, 0, 4.0, 0], [0, 0, 0, 6.0]]])
    (found,) = retinanet([logits], [BOXES], softmax=True)
    assert found.classes[:2].tolist() == [3, 2]
    torch.testing.assert_close(found.scores[0], logits[0, 1].softmax(0)[3])


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
def test_boxes_come_in_pixels_of_the_original_and_are_clipped_to_it(geometry):
    b = batch([(64, 48), (60, 64), (32, 32)], scales=[2.0, 0.5, 1.0])
    scores = torch.full((3, 2, CLASSES), 0.5)
    wide = torch.tensor([[-20.0, -20, 90, 90], [10, 10, 20, 20]])
    found = retinanet([scores], [wide], b=b, r=rule(geometry))
    for detections, meta in zip(found, b.metas, strict=True):
        border = [0.0, 0.0, meta.width - geometry.extent, meta.height - geometry.extent]
        assert border in detections.boxes.tolist()
    assert [10 / 2, 10 / 2, 20 / 2, 20 / 2] in found[0].boxes.tolist() or geometry is DETECTRON


def test_an_image_without_candidates_has_no_detections():
    scores = torch.zeros(2, 2, CLASSES)
    scores[1] = 0.5
    found = retinanet([scores], [BOXES])
    assert len(found[0]) == 0 and found[0].boxes.shape == (0, 4) and len(found[1]) > 0


def test_nms_is_per_class_and_the_best_of_all_classes_are_kept():
    """The rule: NMS class by class, then the DETECTIONS_PER_IM best of the image."""
    boxes = torch.tensor([[0.0, 0, 20, 20], [0, 0, 20, 19], [0, 0, 20, 18], [40, 40, 60, 60]])
    scores, classes = torch.tensor([0.6, 0.9, 0.8, 0.3]), torch.tensor([1, 1, 2, 1])
    found = best_detections(Candidates(boxes, scores, classes), rule())
    assert found.scores.tolist() == pytest.approx([0.9, 0.8, 0.3]) and found.classes.tolist() == [1, 2, 1]
    found = best_detections(Candidates(boxes, scores, classes), rule(detections_per_image=2))
    assert found.scores.tolist() == pytest.approx([0.9, 0.8])


def fast_rcnn(probabilities, deltas, boxes, b, r=None, valid=None):
    """Detections from probabilities (N, P, C), deltas (N, P, K, 4), boxes (N, P, 4)."""
    shape, r = probabilities.shape[:2], r or rule()
    valid = torch.ones(shape, dtype=torch.bool) if valid is None else valid
    found = fast_rcnn_candidates(
        probabilities.flatten(0, 1),
        deltas.flatten(0, 1),
        Proposals(boxes, torch.ones(shape), valid),
        b,
        box_weights=WEIGHTS,
        rule=r,
    )
    return [best_detections(candidates, r) for candidates in found]


PROBABILITIES = torch.tensor([[[0.1, 0.6, 0.26, 0.04], [0.9, 0.03, 0.03, 0.04], [0.2, 0.1, 0.1, 0.6]]])
PROPOSALS = torch.tensor([[[0.0, 0, 20, 20], [30, 30, 60, 60], [5, 30, 25, 60]]])


def test_each_class_has_its_own_box_and_the_background_none():
    """The rule: classes from 1 on with a score > 0.05, each decoded from its own four deltas with BBOX_REG_WEIGHTS."""
    torch.manual_seed(7)
    deltas = torch.randn(1, 3, 4, 4)
    (found,) = fast_rcnn(PROBABILITIES, deltas, PROPOSALS, batch([(640, 640)]), rule(nms_threshold=1.0))
    assert found.classes.tolist() == [1, 3, 2, 1, 2]
    torch.testing.assert_close(found.scores, torch.tensor([0.6, 0.6, 0.26, 0.1, 0.1]))
    rows = torch.tensor([0, 2, 0, 2, 2])
    wanted = decode(
        deltas[0, rows, found.classes], PROPOSALS[0, rows], weights=WEIGHTS, extent=0.0, clip_shrinking=True
    )
    torch.testing.assert_close(found.boxes, wanted.clamp(0, 640))


def test_class_agnostic_deltas_are_in_the_second_column():
    deltas = torch.zeros(1, 3, 2, 4)
    deltas[..., 0, :] = 50.0
    (found,) = fast_rcnn(PROBABILITIES, deltas, PROPOSALS, batch([(64, 64)]))
    torch.testing.assert_close(found.boxes[0], PROPOSALS[0, 0])


def test_padding_proposals_are_never_detected():
    valid = torch.tensor([[False, True, False]])
    (found,) = fast_rcnn(PROBABILITIES, torch.zeros(1, 3, 4, 4), PROPOSALS, batch([(64, 64)]), valid=valid)
    assert len(found) == 0


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_regions_are_decoded_in_the_original_image(geometry, scale):
    """Proposals are divided by the scale first: with pixels that count, the order matters."""
    deltas = torch.full((1, 3, 4, 4), 1.0)
    b = batch([(64, 64)], scales=[scale])
    (found,) = fast_rcnn(PROBABILITIES, deltas, PROPOSALS, b, rule(geometry, nms_threshold=1.0))
    wanted = decode(
        torch.ones(4),
        PROPOSALS[0, 0] / scale,
        weights=WEIGHTS,
        extent=geometry.extent,
        clip_shrinking=geometry.clip_shrinking,
    ).clamp(0)
    assert found.boxes[found.classes == 1][0].tolist() == pytest.approx(wanted.tolist(), abs=1e-4)
