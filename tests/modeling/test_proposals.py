# SPDX-License-Identifier: Apache-2.0
"""Proposals: how many per level, image and batch, what is dropped, and no gradient."""

from dataclasses import replace

import pytest
import torch

from detectron_libra.geometry import CONTINUOUS, DETECTRON, GEOMETRIES
from detectron_libra.modeling.anchors import AnchorGrid, base_anchors
from detectron_libra.modeling.proposals import ProposalRule, make_proposals

STRIDES, MAPS = (8, 16), [(8, 8), (4, 4)]
CANDIDATES = 3 * (64 + 16)


def rule(geometry=CONTINUOUS, **changes):
    base = ProposalRule(
        pre_nms_top_n=1000,
        post_nms_top_n=1000,
        nms_threshold=0.7,
        min_size=0,
        per_batch=False,
        geometry=geometry,
        box_clip=4.135,
    )
    return replace(base, **changes)


def outputs(images=1, geometry=CONTINUOUS, seed=6):
    torch.manual_seed(seed)
    bases = [base_anchors(s, [2 * s], (0.5, 1.0, 2.0), geometry=geometry) for s in STRIDES]
    logits = [torch.randn(images, 3, h, w, requires_grad=True) for h, w in MAPS]
    deltas = [0.3 * torch.randn(images, 12, h, w, requires_grad=True) for h, w in MAPS]
    return logits, deltas, AnchorGrid(bases, STRIDES)(MAPS, "cpu")


def run(r, raw, sizes=None, scales=None):
    n = raw[0][0].shape[0]
    sizes = torch.tensor([[64, 64]] * n) if sizes is None else torch.tensor(sizes)
    return make_proposals(*raw, sizes, torch.ones(n) if scales is None else torch.tensor(scales), r)


def scores_of(proposals, n):
    return proposals.scores[n][proposals.valid[n]]


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
def test_best_first_inside_the_image_and_without_gradient(geometry):
    found = run(rule(geometry), outputs(2, geometry), sizes=[[64, 64], [40, 50]])
    assert found.scores.shape == (2, CANDIDATES) and not found.boxes.requires_grad
    for n, (height, width) in enumerate([(64, 64), (40, 50)]):
        scores, boxes = scores_of(found, n), found.boxes[n][found.valid[n]]
        assert len(scores) > 20 and (scores[:-1] >= scores[1:]).all()
        limit = torch.tensor([width, height, width, height]) - geometry.extent
        assert (boxes >= 0).all() and (boxes <= limit).all()


def test_padding_comes_last_and_is_marked():
    found = run(rule(post_nms_top_n=500), outputs())
    count = int(found.valid.sum())
    assert found.valid[0, :count].all() and not found.valid[0, count:].any() and count < CANDIDATES


def test_top_n_holds_per_level_before_nms():
    """Detectron keeps PRE_NMS_TOP_N of each level, not of all together."""
    logits, deltas, anchors = outputs()
    logits[0] = logits[0] + 10
    found = run(rule(pre_nms_top_n=5, nms_threshold=0), (logits, deltas, anchors))
    scores = scores_of(found, 0)
    assert len(scores) == 10 and (scores[:5] > 0.99).all() and (scores[5:] < 0.99).all()


def test_top_n_after_nms_holds_per_image_at_test_and_per_batch_in_training():
    """Detectron's quirk: in training the last cut is over all images, so one may get nearly all of it."""
    logits, deltas, anchors = outputs(2)
    logits = [torch.stack([x[0] + 8, x[1] - 8]) for x in logits]
    single = run(rule(post_nms_top_n=30), (logits, deltas, anchors))
    assert single.valid.sum(1).tolist() == [30, 30]
    batched = run(rule(post_nms_top_n=30, per_batch=True), (logits, deltas, anchors))
    assert batched.valid.sum(1).tolist() == [30, 0]
    torch.testing.assert_close(batched.boxes[0], single.boxes[0])


def test_per_batch_is_no_change_for_one_image():
    one, other = (run(rule(post_nms_top_n=30, per_batch=p), outputs()) for p in (True, False))
    torch.testing.assert_close(one.boxes, other.boxes)


def test_images_do_not_see_each_other():
    together = run(rule(), outputs(3))
    for n in range(3):
        raw = outputs(3)
        alone = run(rule(), ([x[n : n + 1] for x in raw[0]], [x[n : n + 1] for x in raw[1]], raw[2]))
        torch.testing.assert_close(together.boxes[n], alone.boxes[0])
        assert torch.equal(together.valid[n], alone.valid[0])


def test_nms_is_per_level_and_can_be_switched_off():
    """No second suppression after the levels are joined, as in Detectron."""
    anchors = [torch.tensor([[0.0, 0, 32, 32], [0.0, 0, 32, 31]]), torch.tensor([[0.0, 0, 32, 32]])]
    logits = [torch.tensor([2.0, 1.0]).view(1, 2, 1, 1), torch.tensor([0.0]).view(1, 1, 1, 1)]
    deltas = [torch.zeros(1, 8, 1, 1), torch.zeros(1, 4, 1, 1)]
    assert run(rule(), (logits, deltas, anchors)).valid.sum() == 2
    assert run(rule(nms_threshold=0), (logits, deltas, anchors)).valid.sum() == 3


def one_box(box, r, size=(64, 64), scale=1.0):
    raw = ([torch.zeros(1, 1, 1, 1)], [torch.zeros(1, 4, 1, 1)], [torch.tensor([box]).float()])
    return bool(run(r, raw, sizes=[list(size)], scales=[scale]).valid.any())


def test_small_boxes_go_by_their_size_in_the_original_image():
    box = [10, 10, 25, 25]
    assert one_box(box, rule(DETECTRON, min_size=16))
    assert not one_box(box, rule(DETECTRON, min_size=17))
    # The same box is 8 pixels wide in an image that was doubled: (x2 - x1) / scale + 1.
    assert one_box(box, rule(DETECTRON, min_size=8), scale=2.0)
    assert not one_box(box, rule(DETECTRON, min_size=9), scale=2.0)


def test_at_test_time_boxes_reach_into_detectrons_padding():
    """The rule: a box ends at the resized image in training, and at the padded one at test time."""
    image, box = (50, 64), [10, 40, 30, 58]
    raw = ([torch.zeros(1, 1, 1, 1)], [torch.zeros(1, 4, 1, 1)], [torch.tensor([box]).float()])
    for stride, bottom in ((1, 49.0), (32, 58.0)):
        found = run(rule(DETECTRON, frame_stride=stride), raw, sizes=[list(image)])
        assert found.boxes[0, 0].tolist() == [10.0, 40.0, 30.0, bottom]
    assert one_box([10, 60, 30, 70], rule(DETECTRON, frame_stride=32), size=image)


def test_a_single_pixel_is_a_box_for_detectron_and_a_fraction_of_one_otherwise():
    assert one_box([10, 10, 10, 10], rule(DETECTRON))
    assert one_box([10, 10, 10.5, 10.5], rule(CONTINUOUS))
    assert not one_box([10, 10, 10, 20], rule(CONTINUOUS))


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
def test_boxes_outside_the_image_and_such_that_are_no_numbers_go(geometry):
    # Clipped, it is the last column: one pixel wide for Detectron, which keeps it, and no box otherwise.
    assert one_box([70, 10, 90, 30], rule(geometry)) is (geometry is DETECTRON)
    assert not one_box([70, 10, 90, 30], rule(geometry, min_size=2))
    assert not one_box([float("nan"), 10, 20, 30], rule(geometry))


def test_outputs_that_are_no_numbers_leave_the_other_boxes():
    logits, deltas, anchors = outputs()
    bad = logits[0].detach().clone()
    bad[0, :, 0] = float("nan")
    found = run(rule(), ([bad, logits[1]], deltas, anchors))
    assert found.valid.any() and found.boxes.isfinite().all() and found.scores.isfinite().all()
