# SPDX-License-Identifier: Apache-2.0
"""Box voting: the corners, every scoring method, who may vote, hard inputs, against a literal loop."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from detectron_libra.ops.nms import nms, vote_boxes
from tests.ops import harness
from tests.ops.harness import needs_kernels
from tests.ops.test_nms import crowd
from tests.ops.test_nms_soft import overlap

METHODS = ("ID", "TEMP_AVG", "AVG", "IOU_AVG", "GENERALIZED_AVG", "QUASI_SUM")


def election(k=80, groups=3, seed=0, dtype=torch.float32, device="cpu"):
    """top boxes, scores, groups, then all of them: what nms keeps, and what it was given."""
    boxes, _, group = crowd(k, groups, seed)
    scores = torch.rand(k, generator=torch.Generator().manual_seed(seed)) * 0.9 + 0.05
    keep = nms(boxes, scores, group, threshold=0.3, extent=1.0, inclusive=True)
    every = (boxes.to(dtype), scores.to(dtype), group)
    return [t.to(device) for t in (*(t[keep] for t in every), *every)]


def literal(tops, top_scores, top_groups, boxes, scores, groups, threshold, method, beta, extent):
    """One top box after the other in NumPy float64."""
    out = []
    for top, score, group in zip(tops.tolist(), top_scores.tolist(), top_groups.tolist(), strict=True):
        iou = np.array([overlap(top, b, extent) for b in boxes.tolist()])
        votes = (iou >= threshold) & (groups.numpy() == group)
        s, o = scores.double().numpy()[votes], iou[votes]
        odds = s ** (1 / beta) / (s ** (1 / beta) + (1 - s) ** (1 / beta))
        voted = {
            "ID": score,
            "TEMP_AVG": odds.mean(),
            "AVG": s.mean(),
            "IOU_AVG": np.average(s, weights=o),
            "GENERALIZED_AVG": np.mean(s**beta) ** (1 / beta),
            "QUASI_SUM": s.sum() / len(s) ** beta,
        }[method]
        out.append([*np.average(boxes.double().numpy()[votes], axis=0, weights=s), voted])
    out = torch.tensor(np.array(out))
    return out[:, :4], out[:, 4]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("beta", [1.0, 0.7, 2.5])
def test_equals_a_literal_loop(each_backend, method, beta):
    inputs = election(dtype=torch.float64)
    options = {"threshold": 0.4, "method": method, "beta": beta, "extent": 1.0}
    got = vote_boxes(*inputs, **options)
    for g, e in zip(got, literal(*inputs, **options), strict=True):
        torch.testing.assert_close(g, e, rtol=1e-9, atol=1e-9)


def test_one_pair_by_hand(each_backend):
    # 10 x 10 and its left half: IoU 0.5, exactly at the threshold, which is inclusive.
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 5, 10]])
    scores, groups = torch.tensor([0.9, 0.3]), torch.zeros(2, dtype=torch.int64)
    inputs = (boxes[:1], scores[:1], groups[:1], boxes, scores, groups)
    moved, score = vote_boxes(*inputs, threshold=0.5, method="IOU_AVG", extent=0.0)
    assert moved[0].tolist() == pytest.approx([0, 0, (0.9 * 10 + 0.3 * 5) / 1.2, 10])
    assert score.item() == pytest.approx((0.9 + 0.5 * 0.3) / 1.5)
    moved, score = vote_boxes(*inputs, threshold=0.51, method="AVG", extent=0.0)
    assert moved.tolist() == boxes[:1].tolist()
    assert score.item() == pytest.approx(0.9)


def test_only_the_own_group_votes_and_without_a_vote_all_stays(each_backend):
    boxes = torch.tensor([[0.0, 0, 10, 10]]).repeat(3, 1)
    groups = torch.tensor([5, -3, 9])
    for method in METHODS:
        moved, score = vote_boxes(
            boxes,
            torch.tensor([0.9, 0.8, 0.7]),
            groups,
            boxes[:1] + 1,
            torch.tensor([0.4]),
            torch.tensor([-3]),
            threshold=0.1,
            method=method,
            extent=0.0,
        )
        assert moved[:, 0].tolist() == [0, 1, 0]
        expected = 0.8 if method == "ID" else 0.4
        assert score.tolist() == pytest.approx([0.9, expected, 0.7])


def test_hard_inputs(each_backend):
    nan, inf = math.nan, math.inf
    boxes = torch.tensor([[nan, 0, 9, 9], [0, 0, 9, 9], [5, 5, 5, 5], [-inf, 0, inf, 9]])
    scores, groups = torch.tensor([0.9, 0.0, 0.5, 0.4]), torch.zeros(4, dtype=torch.int64)
    moved, score = vote_boxes(boxes, scores, groups, boxes, scores, groups, threshold=0.5, extent=0.0)
    # No vote, votes of score 0, no area, no finite area: each stays as it is.
    torch.testing.assert_close(moved, boxes, equal_nan=True, rtol=0, atol=0)
    assert torch.equal(score, scores)


@pytest.mark.parametrize(("k", "j"), [(0, 0), (0, 3), (1, 0), (1, 1)])
def test_none_and_one(each_backend, k, j):
    boxes, scores, groups = crowd(4, groups=1)
    moved, score = vote_boxes(
        boxes[:k], scores[:k], groups[:k], boxes[:j], scores[:j], groups[:j], threshold=0.5, extent=1.0
    )
    torch.testing.assert_close(moved, boxes[:k])
    assert torch.equal(score, scores[:k])


def test_half_precision_is_computed_in_float32_and_nothing_learns(each_backend):
    inputs = election()
    halves = [t.bfloat16().requires_grad_() if t.is_floating_point() else t for t in inputs]
    got = vote_boxes(*halves, threshold=0.5, method="AVG", extent=1.0)
    floats = [t.bfloat16().float() if t.is_floating_point() else t for t in inputs]
    for g, e in zip(got, vote_boxes(*floats, threshold=0.5, method="AVG", extent=1.0), strict=True):
        assert torch.equal(g, e)
        assert g.dtype == torch.float32
        assert not g.requires_grad


def test_wrong_arguments_are_refused_by_name(each_backend):
    inputs = election(5)
    options = {"threshold": 0.5, "extent": 0.0}
    for name, place, wrong in (
        ("top_boxes", 0, inputs[0][:, :3]),
        ("top_scores must be", 1, inputs[1][:0]),
        ("top_groups must be int64", 2, inputs[2].int()),
        ("all_boxes must be floating", 3, inputs[3].long()),
        ("all_scores is on meta", 4, inputs[4].to("meta")),
        ("all_groups must be", 5, inputs[5][:2]),
    ):
        with pytest.raises(RuntimeError, match=name):
            vote_boxes(*inputs[:place], wrong, *inputs[place + 1 :], **options)
    with pytest.raises(ValueError, match="method='MEAN'"):
        vote_boxes(*inputs, method="MEAN", **options)
    with pytest.raises(ValueError, match=r"beta=-1\.0"):
        vote_boxes(*inputs, beta=-1.0, **options)


@needs_kernels
@given(st.integers(0, 400), st.integers(1, 9), st.sampled_from(METHODS), st.integers(0, 99), st.booleans())
def test_kernel_equals_reference(k, groups, method, seed, wide):
    inputs = election(k, groups, seed, torch.float64 if wide else torch.float32)

    def run():
        return vote_boxes(*inputs, threshold=0.3, method=method, beta=1.5, extent=1.0)

    got, expected = harness.with_backend("compiled", run), harness.with_backend("reference", run)
    for g, e in zip(got, expected, strict=True):
        torch.testing.assert_close(g, e, rtol=1e-6, atol=1e-6)


@needs_kernels
@pytest.mark.parametrize("method", METHODS)
def test_registration_compile_strides_and_threads(device, method):
    inputs = election(3000, groups=4, device=device)
    tops, top_scores, _, boxes, scores, _ = inputs
    begin = torch.zeros(len(tops), dtype=torch.int64, device=device)
    op = torch.ops.detectron_libra.vote_boxes_in_groups.default
    numbers = (METHODS.index(method), 0.5, 1.5, 1.0)
    turned = tops.t().contiguous().t()
    harness.check_op(op, (turned, top_scores, begin, begin + len(boxes), boxes, scores, *numbers))

    def run(*t):
        return vote_boxes(*t, threshold=0.5, method=method, beta=1.5, extent=1.0)

    expected = run(*inputs)
    torch._dynamo.reset()
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager", dynamic=True)
    threads = torch.get_num_threads()
    results = [compiled(*inputs), run(turned, *inputs[1:])]
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        results.append(run(*inputs))
        torch.set_num_threads(threads)
    for other in results:
        assert torch.equal(other[0], expected[0])
        assert torch.equal(other[1], expected[1])


def test_temperature_pulls_a_probability_towards_a_half_or_away():
    math_module = pytest.importorskip("detectron_libra._math")
    p = np.linspace(0, 1, 10001)
    np.testing.assert_allclose(math_module.vote_tempered(p, 1.0), p, rtol=1e-12, atol=1e-15)
    inner = p[1:-1]
    odds = np.log(inner / (1 - inner))
    for beta in (0.5, 3.0):
        np.testing.assert_allclose(
            math_module.vote_tempered(inner, beta), 1 / (1 + np.exp(-odds / beta)), rtol=1e-9
        )
