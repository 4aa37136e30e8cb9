# SPDX-License-Identifier: Apache-2.0
"""Generalised IoU: numbers by hand, the paper's algorithm in NumPy, gradients, and what must not learn."""

import numpy as np
import pytest
import torch

from detectron_libra.geometry import GEOMETRIES
from detectron_libra.modeling.box_coding import encode
from detectron_libra.modeling.fast_rcnn_loss import fast_rcnn_losses
from detectron_libra.modeling.giou import GIoULoss
from detectron_libra.modeling.layout import cat_levels, gather_rows
from detectron_libra.modeling.overlap import generalised_iou, paired_iou
from detectron_libra.ops.match_boxes import pairwise_iou
from tests.modeling.scenes import targets
from tests.modeling.test_fast_rcnn_loss import LABELS, MATCHED, REGIONS, VALID, WEIGHTS
from tests.modeling.test_fast_rcnn_loss import outputs as region_outputs
from tests.modeling.test_retinanet_loss import OBJECTS, match, outputs, rule, run

EXTENTS = pytest.mark.parametrize("extent", [0.0, 1.0])
LOSS = GIoULoss(clip_shrinking=False)


def random_boxes(seed, count=40):
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 60, (count, 2))
    return np.concatenate([corner, corner + rng.uniform(1, 40, (count, 2))], 1)


def giou_of_the_paper(a, b, extent):
    """Algorithm 1, one pair."""
    area = (a[2] - a[0] + extent) * (a[3] - a[1] + extent)
    other = (b[2] - b[0] + extent) * (b[3] - b[1] + extent)
    width = min(a[2], b[2]) - max(a[0], b[0]) + extent
    height = min(a[3], b[3]) - max(a[1], b[1]) + extent
    shared = max(width, 0) * max(height, 0)
    union = area + other - shared
    enclosing = (max(a[2], b[2]) - min(a[0], b[0]) + extent) * (max(a[3], b[3]) - min(a[1], b[1]) + extent)
    return shared / union - (enclosing - union) / enclosing


def test_numbers_by_hand():
    """Two squares of side 2 that share one of 1; apart by one side; equal; a point against a square."""
    square = torch.tensor([0.0, 0, 2, 2])
    others = torch.tensor([[1.0, 1, 3, 3], [4, 0, 6, 2], [0, 0, 2, 2], [1, 1, 1, 1]])
    expected = torch.tensor([1 / 7 - 2 / 9, 0 - 4 / 12, 1.0, 0.0])
    torch.testing.assert_close(generalised_iou(square, others, extent=0.0), expected)
    pixels = generalised_iou(square, others[:2], extent=1.0)
    torch.testing.assert_close(pixels, torch.tensor([4 / 14 - 2 / 16, 0 - 3 / 21]))


@EXTENTS
def test_pairs_are_those_of_the_paper_and_iou_that_of_the_matcher(extent):
    a, b = random_boxes(1), random_boxes(2)
    found = generalised_iou(torch.from_numpy(a), torch.from_numpy(b), extent=extent)
    expected = [giou_of_the_paper(x, y, extent) for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)
    ours, theirs = (torch.from_numpy(boxes).float() for boxes in (a, b))
    matrix = pairwise_iou(ours, theirs, extent=extent)
    torch.testing.assert_close(paired_iou(ours, theirs, extent=extent), matrix.diagonal())


def test_boxes_without_area_overlap_nothing_and_give_no_nan():
    point = torch.zeros(1, 4, requires_grad=True)
    value = generalised_iou(point, torch.zeros(1, 4), extent=0.0)
    value.sum().backward()
    assert value.isfinite().all() and point.grad.isfinite().all()


@EXTENTS
@pytest.mark.parametrize("clip_shrinking", [False, True])
def test_gradients_of_both_detectors_in_float64(extent, clip_shrinking):
    """Away from the kinks, where sides of the two boxes coincide."""
    loss = GIoULoss(clip_shrinking=clip_shrinking)
    torch.manual_seed(4)
    levels = [torch.randn(1, 8, h, w, dtype=torch.float64) * 0.3 for h, w in ((2, 3), (1, 2))]
    anchors = torch.from_numpy(random_boxes(5, 16)).float()
    boxes = torch.from_numpy(random_boxes(6, 3)).float()[None]
    chosen = {"positive": torch.rand(1, 16) > 0.5, "index": torch.randint(3, (1, 16))}

    def dense(*deltas):
        return loss.on_matches(deltas, anchors, boxes, **chosen, extent=extent, normalizer=3.0)

    regions, matched = (torch.from_numpy(random_boxes(seed, 6)).float() for seed in (7, 8))
    learns = torch.tensor([True, False, True, True, False, True])

    def second_stage(deltas):
        options = {"learns": learns, "box_weights": WEIGHTS, "extent": extent, "normalizer": 3.0}
        return loss.on_regions(deltas, regions, matched, **options)

    assert torch.autograd.gradcheck(dense, [level.requires_grad_() for level in levels])
    deltas = torch.randn(6, 4, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(second_stage, [deltas])


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
def test_a_retinanet_sums_over_its_positives_and_divides_by_the_foreground(geometry):
    found, r = targets(OBJECTS, OBJECTS[:1], []), rule(geometry)
    raw = outputs(3, geometry=geometry)
    m = match(found, raw[2], r)
    n, row = (m.labels > 0).nonzero(as_tuple=True)
    anchors, deltas = torch.cat(raw[2])[row], cat_levels(raw[1], 4)[n, row].detach()
    size = anchors[:, 2:] - anchors[:, :2] + geometry.extent
    centre = anchors[:, :2] + size / 2 + deltas[:, :2] * size
    half = deltas[:, 2:].exp() * size / 2
    boxes = torch.cat([centre - half, centre + half - geometry.extent], 1).double().numpy()
    truth = found.boxes[n, m.index[n, row]].double().numpy()
    each = [1 - giou_of_the_paper(a, b, geometry.extent) for a, b in zip(boxes, truth, strict=True)]
    losses, _ = run(found, r, LOSS, raw)
    assert losses["bbox"].item() == pytest.approx(sum(each) / m.foreground.item(), rel=1e-4)
    losses["bbox"].backward()
    gradient = cat_levels([d.grad for d in raw[1]], 4).any(2)
    assert torch.equal(gradient, m.labels > 0)


def test_all_anchors_with_a_mask_give_what_the_positives_alone_give():
    """The way of a GPU, where nobody asks which anchors are positive, on the same numbers."""
    found, geometry = targets(OBJECTS, OBJECTS[:1], []), rule().geometry
    alone, masked = outputs(3), outputs(3)
    m, anchors = match(found, alone[2], rule()), torch.cat(alone[2])
    positive = m.labels > 0
    chosen = {"positive": positive, "index": m.index, "extent": geometry.extent, "normalizer": 5.0}
    value = LOSS.on_matches(alone[1], anchors, found.boxes, **chosen)
    other = LOSS.on_regions(
        cat_levels(masked[1], 4).flatten(0, 1),
        anchors.repeat(3, 1),
        gather_rows(found.boxes, m.index).flatten(0, 1),
        learns=positive.flatten(),
        box_weights=(1, 1, 1, 1),
        extent=geometry.extent,
        normalizer=5.0,
    )
    torch.testing.assert_close(value, other)
    value.backward()
    other.backward()
    for a, b in zip(alone[1], masked[1], strict=True):
        torch.testing.assert_close(a.grad, b.grad)


@EXTENTS
def test_the_second_stage_divides_by_the_number_of_regions_and_only_positives_learn(extent):
    logits, deltas = region_outputs()
    garbage = deltas.detach().clone()
    garbage[1] = float("inf")
    garbage[4] = float("nan")
    garbage.requires_grad_()
    args = (REGIONS, MATCHED, LABELS, VALID)
    losses, _ = fast_rcnn_losses(logits, garbage, *args, box_weights=WEIGHTS, extent=extent, box_loss=LOSS)
    losses["bbox"].backward()
    assert losses["bbox"].isfinite() and garbage.grad.isfinite().all()
    assert garbage.grad.any(2).nonzero().tolist() == [[0, 2], [2, 3], [3, 1]]
    exact = encode(REGIONS, MATCHED, weights=WEIGHTS, extent=extent)[:, None].expand(-1, 4, -1)
    perfect, _ = fast_rcnn_losses(logits, exact, *args, box_weights=WEIGHTS, extent=extent, box_loss=LOSS)
    assert perfect["bbox"].item() == pytest.approx(0, abs=1e-5)
    twice, _ = fast_rcnn_losses(
        logits.expand(5, -1), exact + 0.5, *args, box_weights=WEIGHTS, extent=extent, box_loss=LOSS
    )
    assert 0 < twice["bbox"] < 2 * 3 / 4


@EXTENTS
def test_boxes_that_are_far_apart_still_come_closer(extent):
    """What IoU alone cannot: its gradient is 0 there."""
    anchors, truth = torch.tensor([[0.0, 0, 9, 9]]), torch.tensor([[30.0, 0, 39, 9]])
    deltas = torch.zeros(1, 4, requires_grad=True)
    optimizer, values = torch.optim.SGD([deltas], lr=0.3), []
    for _ in range(200):
        optimizer.zero_grad()
        value = LOSS.on_regions(
            deltas,
            anchors,
            truth,
            learns=torch.ones(1, dtype=torch.bool),
            box_weights=(1, 1, 1, 1),
            extent=extent,
            normalizer=1.0,
        )
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[0] > 1 and min(values) < 0.1


@pytest.mark.parametrize("found", [targets([], []), targets([(0, 0, 0, 0, 0)], [])], ids=["none", "padding"])
def test_images_without_boxes_give_zero_and_no_gradient(found):
    raw = outputs(2)
    losses, _ = run(found, box_loss=LOSS, raw=raw)
    losses["bbox"].backward()
    assert losses["bbox"] == 0 and all(not d.grad.any() for d in raw[1])
