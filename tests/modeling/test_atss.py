# SPDX-License-Identifier: Apache-2.0
"""ATSS: algorithm 1 of the paper object by object against the batched form, and both detectors that learn by it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from detectron_libra.geometry import CONTINUOUS, DETECTRON
from detectron_libra.modeling.anchors import AnchorGrid, base_anchors
from detectron_libra.modeling.atss import ATSS
from detectron_libra.modeling.losses import SmoothL1Loss
from detectron_libra.modeling.retinanet_loss import NegativeChoice, retinanet_losses
from detectron_libra.modeling.rpn_loss import RPNRule, match_anchors
from detectron_libra.modeling.sampling import IoUSampling
from detectron_libra.modeling.slots import DenseOutputs
from tests.modeling.scenes import targets
from tests.modeling.test_retinanet_loss import OBJECTS, outputs, rule, run

STRIDES, MAPS = (8, 16, 32), [(16, 12), (8, 6), (4, 3)]
GEOMETRIES = pytest.mark.parametrize("geometry", [DETECTRON, CONTINUOUS], ids=lambda g: g.name)


def dense(geometry, sizes=(4.0,), ratios=(1.0,), images=1):
    """Outputs of a head that says nothing, with anchors of ``sizes`` strides on three levels of 128 x 96 pixels."""
    bases = [base_anchors(s, [s * size for size in sizes], ratios, geometry=geometry) for s in STRIDES]
    count = len(bases[0])
    logits = [torch.zeros(images, count, h, w) for h, w in MAPS]
    deltas = [torch.zeros(images, count * 4, h, w) for h, w in MAPS]
    return DenseOutputs(logits, deltas, AnchorGrid(bases, STRIDES)(MAPS, "cpu"))


def random_objects(seed, count):
    rng = np.random.default_rng(seed)
    sides = rng.uniform(6, 70, (count, 2))
    corner = rng.uniform(0, 1, (count, 2)) * (np.array([96, 128]) - sides)
    boxes = np.concatenate([corner, corner + sides], 1)
    return [(*box, 1 + k % 3) for k, box in enumerate(boxes.astype(np.float32).tolist())]


def iou_of(a, b, extent):
    width = min(a[2], b[2]) - max(a[0], b[0]) + extent
    height = min(a[3], b[3]) - max(a[1], b[1]) + extent
    shared = max(width, 0) * max(height, 0)
    areas = [(c[2] - c[0] + extent) * (c[3] - c[1] + extent) for c in (a, b)]
    return shared / (sum(areas) - shared)


def atss_of_the_paper(found, objects, top_k, extent):
    """{anchor: ground truth} of one image, object by object and level by level."""
    per_cell, anchors = found.anchors_per_cell, found.all_anchors.double().numpy()
    claims = {}
    for g, (*box, _) in enumerate(objects):
        candidates, start = [], 0
        centre = [(box[d] + box[d + 2] + extent) / 2 for d in (0, 1)]
        for level in found.anchors:
            middle = (level[:, :2] + level[:, 2:] + extent).double().numpy() / 2
            distance = ((middle - centre) ** 2).sum(1)
            nearest = np.argsort(distance, kind="stable")[: top_k * per_cell]
            candidates += (start + nearest).tolist()
            start += len(level)
        overlaps = [iou_of(anchors[m], box, extent) for m in candidates]
        threshold = np.mean(overlaps) + np.std(overlaps, ddof=1)
        for m, iou in zip(candidates, overlaps, strict=True):
            x, y = ((anchors[m][d] + anchors[m][d + 2] + extent) / 2 for d in (0, 1))
            inside = box[0] < x < box[2] + extent and box[1] < y < box[3] + extent
            if iou >= threshold and inside and iou > claims.get(m, (0, 0))[0]:
                claims[m] = (iou, g)
    return {m: g for m, (_, g) in claims.items()}


@GEOMETRIES
@pytest.mark.parametrize("per_cell", [1, 9])
@pytest.mark.parametrize("top_k", [3, 9, 1000])
def test_a_batch_is_assigned_as_the_paper_does_object_by_object(geometry, per_cell, top_k):
    """Images of 5, 0 and 12 objects: padded rows, ground truth that claims the same anchors, no ground truth."""
    shapes = {1: {}, 9: {"sizes": (4.0, 5.04, 6.35), "ratios": (0.5, 1.0, 2.0)}}
    outputs = dense(geometry, **shapes[per_cell], images=3)
    images = [random_objects(1, 5), [], random_objects(2, 12)]
    found = ATSS(top_k=top_k, extent=geometry.extent)(outputs, targets(*images))
    for n, objects in enumerate(images):
        expected = atss_of_the_paper(outputs, objects, top_k, geometry.extent)
        rows = (found.state[n] == 1).nonzero().flatten().tolist()
        assert {m: found.index[n, m].item() for m in rows} == expected
        assert (len(rows) > 0) == (len(objects) > 0) and (found.state[n] >= 0).all()
    assert found.iou.shape == found.state.shape and found.iou[1].max() == 0


@GEOMETRIES
def test_objects_of_every_size_get_positives(geometry):
    """Where the centre of a cell lies in it: one smaller than the finest stride may lie between all of them."""
    outputs = dense(geometry, images=1)
    objects = [(40, 40, 40 + side, 40 + side, 1) for side in (10, 14, 23, 45, 80)]
    for single in objects:
        found = ATSS(top_k=9, extent=geometry.extent)(outputs, targets([single]))
        assert 1 <= (found.state == 1).sum() <= 27


def test_the_largest_overlap_wins_an_anchor_and_of_equals_the_first():
    outputs = dense(CONTINUOUS)
    found = ATSS(top_k=9, extent=0.0)(outputs, targets([(30, 30, 64, 64, 1), (30, 30, 64, 64, 2)]))
    assert (found.state == 1).any() and found.index[found.state == 1].unique().tolist() == [0]


def test_crowds_are_never_learned_and_ignored_where_asked():
    outputs, crowd = dense(CONTINUOUS), targets([(0, 0, 90, 120, 1, True), (60, 80, 90, 110, 2)])
    background = ATSS(top_k=9, extent=0.0)(outputs, crowd)
    ignored = ATSS(top_k=9, extent=0.0, crowd_threshold=0.5)(outputs, crowd)
    positive = background.state == 1
    assert background.index[positive].unique().tolist() == [1] and (background.state >= 0).all()
    assert torch.equal(ignored.state == 1, positive) and (ignored.state == -1).any()


def test_anchors_that_take_no_part_are_ignored():
    outputs, found = dense(CONTINUOUS), targets([(20, 20, 60, 60, 1)])
    candidates = torch.rand(1, len(outputs.all_anchors), generator=torch.Generator().manual_seed(0)) > 0.5
    assigned = ATSS(top_k=9, extent=0.0)(outputs, found, candidates)
    assert torch.equal(assigned.state >= 0, candidates) and (assigned.state == 1).any()


@GEOMETRIES
def test_a_retinanet_learns_what_is_assigned_and_divides_by_the_positives(geometry):
    r = rule(geometry, assigner=ATSS(top_k=4, extent=geometry.extent))
    found, raw = targets(OBJECTS, []), outputs(2, geometry=geometry)
    assigned = r.assigner(DenseOutputs(*raw), found)
    losses, metrics = run(found, r, raw=raw)
    count = (assigned.state == 1).sum()
    assert metrics["num_fg"] == count > 0
    ones = replace(found, classes=found.classes.clamp(max=1))
    labels = torch.where(assigned.state == 1, found.classes.gather(1, assigned.index), assigned.state)
    same = retinanet_losses(*raw, ones, rule=r, box_loss=SmoothL1Loss(beta=0.11))[0]
    torch.testing.assert_close(same["bbox"], losses["bbox"])
    assert sorted(labels[labels > 0].unique().tolist()) == [2, 3]
    (losses["cls"] + losses["bbox"]).backward()
    assert all(t.grad.isfinite().all() for t in raw[0] + raw[1])


def test_iou_balanced_negatives_go_with_it():
    """Negatives may have any IoU, and the bins reach to 1."""
    choice = NegativeChoice(30, IoUSampling())
    r = rule(assigner=ATSS(top_k=4, extent=1.0), negatives=choice)
    assert run(targets(OBJECTS, []), r)[1]["num_bg"] == 60


def test_the_proposal_networks_candidates_are_those_assigned_inside_the_image():
    outputs, found = dense(CONTINUOUS, images=1), targets([(20, 20, 60, 60, 1)])
    sizes = torch.tensor([[128, 96]])
    base = RPNRule(0.7, 0.3, 0, 16, 0.5, CONTINUOUS, "continuous", assigner=ATSS(top_k=9, extent=0.0))
    free = match_anchors(outputs, found, sizes, replace(base, straddle=-1))
    assert torch.equal(free.foreground, ~free.background) and free.foreground.any()
    kept = match_anchors(outputs, found, sizes, base)
    boxes = outputs.all_anchors
    inside = ((boxes >= 0) & (boxes < torch.tensor([96.0, 128, 96, 128]))).all(1)
    assert torch.equal(kept.foreground[0] | kept.background[0], inside)
    assert torch.equal(kept.foreground, free.foreground & inside)
