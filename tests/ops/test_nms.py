# SPDX-License-Identifier: Apache-2.0
"""Greedy suppression: both box conventions, groups, ties, hard inputs, all against brute force."""

import math

import pytest
import torch

from detectron_libra.geometry import CONTINUOUS, DETECTRON
from detectron_libra.ops.nms import nms
from tests.ops import harness
from tests.ops.harness import needs_kernels

CONVENTIONS = [(e, i) for e in (0.0, 1.0) for i in (False, True)]


def crowd(k=80, groups=3, seed=0, whole=False):
    """boxes, scores with ties, groups; whole pixels make IoUs exactly equal to simple thresholds common."""
    g = torch.Generator().manual_seed(seed)
    boxes = torch.rand(k, 4, generator=g) * 40
    if whole:
        boxes = (boxes / 4).round()
    boxes[:, 2:] = boxes[:, :2] + (boxes[:, 2:] if not whole else boxes[:, 2:] / 2).round()
    scores = (torch.rand(k, generator=g) * 20).round() / 20
    return boxes, scores, torch.randint(groups, (k,), generator=g)


def brute_force(boxes, scores, groups, threshold, extent, inclusive):
    """One box after the other, in Python numbers rounded to float32 by torch."""
    order = sorted(range(len(boxes)), key=lambda i: (-scores[i].item(), i))
    kept = []
    for i in order:
        if not any(
            groups[i] == groups[j] and overlaps(boxes[j], boxes[i], threshold, extent, inclusive)
            for j in kept
        ):
            kept.append(i)
    mask = torch.zeros(len(boxes), dtype=torch.bool)
    mask[kept] = True
    return mask


def overlaps(a, b, threshold, extent, inclusive):
    width = torch.min(a[2], b[2]) - torch.max(a[0], b[0]) + extent
    height = torch.min(a[3], b[3]) - torch.max(a[1], b[1]) + extent
    inter = width.clamp(min=0) * height.clamp(min=0)
    area = [(c[2] - c[0] + extent) * (c[3] - c[1] + extent) for c in (a, b)]
    iou = inter / (area[0] + area[1] - inter)
    limit = torch.tensor(threshold)
    return bool(iou >= limit if inclusive else iou > limit)


@pytest.mark.parametrize(("extent", "inclusive"), CONVENTIONS)
@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.7, 1.0])
def test_equals_brute_force(each_backend, extent, inclusive, whole, threshold):
    boxes, scores, groups = crowd(60, whole=whole)
    got = nms(boxes, scores, groups, threshold=threshold, extent=extent, inclusive=inclusive)
    assert torch.equal(got, brute_force(boxes, scores, groups, threshold, extent, inclusive))


def test_a_box_exactly_at_the_threshold(each_backend):
    """The rule: Detectron suppresses at IoU >= threshold, torchvision at IoU > threshold."""
    # Halves of each other: IoU is 0.5 when a side is x2 - x1 + extent.
    for geometry in (DETECTRON, CONTINUOUS):
        end = 10 - geometry.extent
        boxes = torch.tensor([[0, 0, end, end], [0, 0, 5 - geometry.extent, end]])
        keep = nms(
            boxes,
            torch.tensor([0.9, 0.8]),
            torch.zeros(2, dtype=torch.int64),
            threshold=0.5,
            extent=geometry.extent,
            inclusive=geometry.nms_inclusive,
        )
        assert keep.tolist() == [True, not geometry.nms_inclusive]


def test_groups_never_meet_and_ties_go_to_the_first(each_backend):
    boxes = torch.tensor([[0.0, 0, 9, 9]]).repeat(4, 1)
    groups = torch.tensor([7, -2, 7, -2])
    keep = nms(boxes, torch.full((4,), 0.5), groups, threshold=0.5, extent=0.0, inclusive=False)
    assert keep.tolist() == [True, True, False, False]


def test_a_dropped_box_drops_nothing(each_backend):
    # A overlaps B, B overlaps C, A does not overlap C.
    boxes = torch.tensor([[0.0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10]])
    keep = nms(
        boxes,
        torch.tensor([0.9, 0.8, 0.7]),
        torch.zeros(3, dtype=torch.int64),
        threshold=0.3,
        extent=0.0,
        inclusive=False,
    )
    assert keep.tolist() == [True, False, True]


def test_hard_inputs(each_backend):
    nan, inf = math.nan, math.inf
    boxes = torch.tensor(
        [
            [0, 0, 9, 9],
            [nan, 0, 9, 9],
            [0, 0, 9, 9],
            [5, 5, 5, 5],
            [5, 5, 5, 5],
            [-inf, 0, inf, 9],
            [9, 9, 0, 0],
        ]
    )
    scores = torch.tensor([nan, 0.9, 0.1, 0.5, 0.4, inf, -inf])
    keep = nms(boxes, scores, torch.zeros(7, dtype=torch.int64), threshold=0.5, extent=0.0, inclusive=False)
    # Box 2 beats box 0, whose score is no number; boxes without area and boxes that are no numbers stay.
    assert keep.tolist() == [False, True, True, True, True, True, True]


@pytest.mark.parametrize("k", [0, 1])
def test_none_and_one(each_backend, k):
    boxes, scores, groups = crowd(k)
    keep = nms(boxes, scores, groups, threshold=0.5, extent=1.0, inclusive=True)
    assert keep.dtype == torch.bool
    assert keep.tolist() == [True] * k


def test_half_precision_and_requires_grad(each_backend):
    boxes, scores, groups = crowd()
    options = {"threshold": 0.5, "extent": 1.0, "inclusive": True}
    expected = nms(boxes.bfloat16().float(), scores.bfloat16().float(), groups, **options)
    got = nms(boxes.bfloat16().requires_grad_(), scores.bfloat16().requires_grad_(), groups, **options)
    assert torch.equal(got, expected)
    assert not got.requires_grad


def test_wrong_arguments_are_refused_by_name(each_backend):
    boxes, scores, groups = crowd(5)
    options = {"threshold": 0.5, "extent": 0.0, "inclusive": False}
    for name, arguments in {
        "boxes": (boxes[:, :3], scores, groups),
        "scores": (boxes, scores[:4], groups),
        "groups": (boxes, scores, groups.int()),
        "scores is on meta": (boxes, scores.to("meta"), groups),
        "boxes must be floating": (boxes.long(), scores, groups),
    }.items():
        with pytest.raises(RuntimeError, match=name):
            nms(*arguments, **options)


@needs_kernels
@pytest.mark.parametrize(("extent", "inclusive"), CONVENTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_kernel_equals_reference_on_many_boxes(device, extent, inclusive, dtype):
    boxes, scores, groups = (t.to(device) for t in crowd(1500, groups=5, seed=1))
    boxes = boxes.to(dtype)

    def run():
        return nms(boxes, scores, groups, threshold=0.5, extent=extent, inclusive=inclusive)

    got = harness.with_backend("compiled", run)
    assert torch.equal(got, harness.with_backend("reference", run))
    assert 0 < got.sum() < len(got)
    assert torch.equal(got, run())


@needs_kernels
def test_registration_and_compile(device):
    boxes, scores, groups = (t.to(device) for t in crowd())
    op = torch.ops.detectron_libra.nms_in_order.default
    harness.check_op(op, (boxes, groups, groups.argsort(), 0.5, 1.0, True))
    torch._dynamo.reset()

    def run(b, s, g):
        return nms(b, s, g, threshold=0.5, extent=1.0, inclusive=True)

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(boxes, scores, groups), run(boxes, scores, groups))


@needs_kernels
def test_strided_boxes(device):
    boxes, scores, groups = (t.to(device) for t in crowd())
    options = {"threshold": 0.5, "extent": 1.0, "inclusive": True}
    turned = boxes.t().contiguous().t()
    assert torch.equal(nms(turned, scores, groups, **options), nms(boxes, scores, groups, **options))


@needs_kernels
def test_the_operator_itself_refuses_by_name():
    boxes, _, groups = crowd(5)
    op = torch.ops.detectron_libra.nms_in_order.default
    for name, arguments in {
        "boxes must have size 4": (boxes[:, :3], groups, groups),
        "groups must be int64": (boxes, groups.int(), groups),
        "order must have size 5": (boxes, groups, groups[:2]),
    }.items():
        with pytest.raises(RuntimeError, match=name):
            op(*arguments, 0.5, 0.0, False)
