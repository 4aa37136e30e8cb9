# SPDX-License-Identifier: Apache-2.0
"""Soft-NMS: the three weights, when a box leaves, ties, hard inputs, all against a literal loop."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from detectron_libra.ops.nms import nms, soft_nms
from tests.ops import harness
from tests.ops.harness import needs_kernels
from tests.ops.test_nms import crowd

METHODS = ("linear", "gaussian", "hard")
OPTIONS = {"sigma": 0.5, "overlap_threshold": 0.3, "score_threshold": 0.05, "extent": 1.0}


def literal(boxes, scores, groups, method, sigma, overlap_threshold, score_threshold, extent):
    """The definition, box by box in Python numbers."""
    corners, now = boxes.double().tolist(), scores.double().tolist()
    todo, kept = set(range(len(now))), []
    while todo:
        best = min(todo, key=lambda i: (-now[i], i))
        todo.remove(best)
        kept.append(best)
        for i in sorted(todo):
            iou = overlap(corners[best], corners[i], extent) if groups[i] == groups[best] else 0
            if iou <= 0:
                continue
            if method == "gaussian":
                now[i] *= math.exp(-(iou**2) / sigma)
            elif iou > overlap_threshold:
                now[i] *= 1 - iou if method == "linear" else 0
            if now[i] < score_threshold:
                todo.remove(i)
    return torch.tensor(now, dtype=torch.float64), torch.tensor([i in kept for i in range(len(now))])


def overlap(a, b, extent):
    width = min(a[2], b[2]) - max(a[0], b[0]) + extent
    height = min(a[3], b[3]) - max(a[1], b[1]) + extent
    if width <= 0 or height <= 0:
        return 0
    area = [(c[2] - c[0] + extent) * (c[3] - c[1] + extent) for c in (a, b)]
    return width * height / (sum(area) - width * height)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("extent", [0.0, 1.0])
@pytest.mark.parametrize("k", [2, 70])
def test_equals_a_literal_loop(each_backend, method, extent, k):
    boxes, _, groups = (t.double() if t.is_floating_point() else t for t in crowd(k))
    scores = torch.rand(k, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    options = OPTIONS | {"extent": extent}
    got, keep = soft_nms(boxes, scores, groups, method=method, **options)
    expected, expected_keep = literal(boxes, scores, groups, method, **options)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12)
    assert torch.equal(keep, expected_keep)
    assert got.dtype == torch.float64


def test_one_pair_by_hand(each_backend):
    # 10 x 10 and its left half: IoU 0.5.
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 5, 10]])
    scores, groups = torch.tensor([0.5, 0.8]), torch.zeros(2, dtype=torch.int64)
    for method, limit, expected in (
        ("linear", 0.3, 0.25),
        ("linear", 0.5, 0.5),  # an IoU equal to the threshold weighs 1
        ("gaussian", 0.9, 0.5 * math.exp(-0.5)),  # which knows no threshold
        ("hard", 0.3, 0.0),
        ("hard", 0.5, 0.5),
    ):
        got, keep = soft_nms(
            boxes, scores, groups, method=method, overlap_threshold=limit, score_threshold=0.001, extent=0.0
        )
        assert got.tolist() == pytest.approx([expected, 0.8])
        assert keep.tolist() == [expected > 0, True]


def test_a_box_leaves_when_it_ends_below_the_threshold_and_not_at_it(each_backend):
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 5, 10], [100, 100, 110, 110]])
    scores, groups = torch.tensor([1.0, 0.5, 0.01]), torch.zeros(3, dtype=torch.int64)
    for threshold, stays in ((0.25, True), (0.26, False)):
        _, keep = soft_nms(boxes, scores, groups, score_threshold=threshold, extent=0.0)
        assert keep.tolist() == [True, stays, True]  # the last meets nobody: its low score is no matter


def test_a_box_that_left_lowers_nobody(each_backend):
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 0, 11, 10], [10.5, 0, 20.5, 10]])
    scores, groups = torch.tensor([0.9, 0.8, 0.7]), torch.zeros(3, dtype=torch.int64)
    got, keep = soft_nms(boxes, scores, groups, score_threshold=0.5, extent=0.0)
    assert keep.tolist() == [True, False, True]
    assert got[2] == scores[2]


def test_the_lowered_order_decides_who_is_picked_next(each_backend):
    # The second falls behind the third before it can lower it.
    boxes = torch.tensor([[0.0, 0, 10, 10], [2, 0, 12, 10], [6, 0, 16, 10]])
    scores, groups = torch.tensor([0.9, 0.8, 0.7]), torch.zeros(3, dtype=torch.int64)
    got, _ = soft_nms(boxes, scores, groups, overlap_threshold=0.3, score_threshold=0.0, extent=0.0)
    first = 0.8 * (1 - 80 / 120)
    assert got.tolist() == pytest.approx([0.9, first * (1 - 60 / 140), 0.7])


def test_ties_go_to_the_first_and_groups_never_meet(each_backend):
    boxes = torch.tensor([[0.0, 0, 9, 9]]).repeat(4, 1)
    groups = torch.tensor([7, -2, 7, -2])
    got, keep = soft_nms(boxes, torch.full((4,), 0.5), groups, extent=0.0)
    assert keep.tolist() == [True, True, False, False]
    assert got.tolist() == [0.5, 0.5, 0.0, 0.0]


@pytest.mark.parametrize("method", METHODS)
def test_hard_inputs(each_backend, method):
    nan, inf = math.nan, math.inf
    same = [0.0, 0, 9, 9]
    boxes = torch.tensor([same, [nan, 0, 9, 9], same, [5, 5, 5, 5], [-inf, 0, inf, 9], [9, 9, 0, 0], same])
    scores = torch.tensor([nan, 0.9, inf, 0.5, 0.4, 0.3, -inf])
    got, keep = soft_nms(
        boxes, scores, torch.zeros(7, dtype=torch.int64), method=method, score_threshold=0.01, extent=0.0
    )
    assert keep.tolist() == [True, True, True, True, True, True, False]
    assert got[0].isnan()
    assert got[1:6].tolist() == scores[1:6].tolist()


@pytest.mark.parametrize("k", [0, 1])
def test_none_and_one(each_backend, k):
    boxes, scores, groups = crowd(k)
    got, keep = soft_nms(boxes, scores, groups, extent=1.0)
    assert keep.tolist() == [True] * k
    assert torch.equal(got, scores)


def test_half_precision_is_computed_in_float32_and_nothing_learns(each_backend):
    boxes, scores, groups = crowd()
    got, keep = soft_nms(boxes.bfloat16().requires_grad_(), scores.half().requires_grad_(), groups, **OPTIONS)
    expected = soft_nms(boxes.bfloat16().float(), scores.half().float(), groups, **OPTIONS)
    assert torch.equal(got, expected[0])
    assert torch.equal(keep, expected[1])
    assert got.dtype == torch.float32
    assert not got.requires_grad


def test_wrong_arguments_are_refused_by_name(each_backend):
    boxes, scores, groups = crowd(5)
    for name, arguments in {
        "boxes": (boxes[:, :3], scores, groups),
        "scores must be floating": (boxes, groups, groups),
        "groups must be int64": (boxes, scores, groups.int()),
        "groups is on meta": (boxes, scores, groups.to("meta")),
    }.items():
        with pytest.raises(RuntimeError, match=name):
            soft_nms(*arguments, **OPTIONS)
    with pytest.raises(ValueError, match="method='soft'"):
        soft_nms(boxes, scores, groups, method="soft", **OPTIONS)
    with pytest.raises(ValueError, match=r"sigma=0\.0"):
        soft_nms(boxes, scores, groups, **(OPTIONS | {"sigma": 0.0}))


@needs_kernels
@given(st.integers(0, 300), st.integers(1, 9), st.sampled_from(METHODS), st.integers(0, 99), st.booleans())
def test_kernel_equals_reference(k, groups_, method, seed, wide):
    boxes, scores, groups = crowd(k, groups_, seed)
    scores = torch.rand(k, generator=torch.Generator().manual_seed(seed))  # of equal scores none
    dtype = torch.float64 if wide else torch.float32
    inputs = (boxes.to(dtype) * 10, scores.to(dtype), groups)

    def run():
        return soft_nms(*inputs, method=method, **OPTIONS)

    got = harness.with_backend("compiled", run)
    expected = harness.with_backend("reference", run)
    torch.testing.assert_close(got[0], expected[0], rtol=2e-5, atol=1e-7)
    assert torch.equal(got[1], expected[1])


@needs_kernels
@pytest.mark.parametrize("method", METHODS)
def test_registration_compile_strides_and_threads(device, method):
    boxes, scores, groups = (t.to(device) for t in crowd(900, groups=7))
    op = torch.ops.detectron_libra.soft_nms_in_order.default
    numbers = (METHODS.index(method), 0.5, 0.3, 0.05, 1.0)
    harness.check_op(op, (boxes, scores, groups, groups.argsort(stable=True), *numbers))

    def run(b, s, g):
        return soft_nms(b, s, g, method=method, **OPTIONS)

    expected = run(boxes, scores, groups)
    torch._dynamo.reset()
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager", dynamic=True)
    turned = run(boxes.t().contiguous().t(), scores.repeat_interleave(2)[::2], groups)
    for other in (compiled(boxes, scores, groups), turned, run(boxes, scores, groups)):
        assert torch.equal(other[0], expected[0])
        assert torch.equal(other[1], expected[1])
    reference = harness.with_backend("reference", lambda: run(boxes, scores, groups))
    torch.testing.assert_close(expected[0], reference[0], rtol=2e-5, atol=1e-7)
    threads = torch.get_num_threads()
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        again = run(boxes, scores, groups)
        torch.set_num_threads(threads)
        assert torch.equal(again[0], expected[0])


def test_hard_is_greedy_suppression_with_an_exclusive_threshold(each_backend):
    boxes, _, groups = crowd(200)
    scores = torch.rand(200, generator=torch.Generator().manual_seed(1)) + 0.1
    _, keep = soft_nms(
        boxes, scores, groups, method="hard", overlap_threshold=0.4, score_threshold=1e-4, extent=0.0
    )
    assert torch.equal(keep, nms(boxes, scores, groups, threshold=0.4, extent=0.0, inclusive=False))


def test_weights_are_those_of_the_paper():
    math_module = pytest.importorskip("detectron_libra._math")
    iou = np.linspace(1e-6, 1, 100001)
    np.testing.assert_allclose(
        math_module.soft_weight_gaussian(iou, 0.5, 0.3), np.exp(-(iou**2) / 0.5), rtol=1e-12
    )
    linear = math_module.soft_weight_linear(iou, 0.5, 0.3)
    np.testing.assert_array_equal(linear, np.where(iou > 0.3, 1 - iou, 1))
    np.testing.assert_array_equal(math_module.soft_weight_hard(iou, 0.5, 0.3), iou <= 0.3)
