# SPDX-License-Identifier: Apache-2.0
"""match_boxes: the best ground truth of a box, ties, padding, and boxes that do not take part."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from detectron_libra.ops.match_boxes import match_boxes, max_overlap_with, pairwise_iou
from tests.ops import harness
from tests.ops.harness import needs_kernels

ALL = torch.ones(1, 2, dtype=torch.bool)


def random_boxes(*shape):
    corner = torch.rand(*shape, 2) * 60
    return torch.cat((corner, corner + torch.rand(*shape, 2) * 40), -1)


def slow_iou(a, b, extent):
    width = min(a[2], b[2]) - max(a[0], b[0]) + extent
    height = min(a[3], b[3]) - max(a[1], b[1]) + extent
    shared = max(width, 0) * max(height, 0)
    area = [(c[2] - c[0] + extent) * (c[3] - c[1] + extent) for c in (a, b)]
    return shared / (sum(area) - shared)


@pytest.mark.parametrize("extent", [0, 1])
def test_best_ground_truth_equals_a_loop_over_pairs(extent):
    torch.manual_seed(1)
    boxes, gt = random_boxes(2, 20), random_boxes(2, 5)
    valid = torch.tensor([[1, 1, 1, 0, 0], [1, 0, 1, 1, 1]], dtype=torch.bool)
    found = match_boxes(boxes, gt, valid, extent=extent)
    for n in range(2):
        for m in range(20):
            values = [
                slow_iou(boxes[n, m].tolist(), gt[n, g].tolist(), extent) if valid[n, g] else -1.0
                for g in range(5)
            ]
            assert found.iou[n, m].item() == pytest.approx(max(values), abs=1e-6)
            if max(values) > 0:
                assert found.index[n, m] == values.index(max(values))


def test_each_ground_truth_has_its_best_box():
    torch.manual_seed(2)
    boxes, gt = random_boxes(50), random_boxes(1, 4)
    found = match_boxes(boxes, gt, torch.ones(1, 4, dtype=torch.bool), extent=0)
    alone = [match_boxes(boxes, gt[:, [g]], ALL[:, :1], extent=0).iou[0] for g in range(4)]
    for g in range(4):
        best = alone[g].argmax()
        owners = [h for h in range(4) if alone[h].argmax() == best]
        assert found.best_for[0, best] == max(owners)
    assert (found.best_for >= 0).sum() == len({int(a.argmax()) for a in alone})


def test_equal_boxes_share_the_best_and_the_later_ground_truth_owns_it():
    box = [10.0, 10, 20, 20]
    boxes = torch.tensor([box, [50.0, 50, 60, 60], box])
    gt = torch.tensor([[box, box]])
    found = match_boxes(boxes, gt, ALL, extent=1)
    assert found.iou.tolist() == [[1, 0, 1]]
    assert found.index.tolist() == [[0, 0, 0]]
    assert found.best_for.tolist() == [[1, -1, 1]]


def test_a_weak_best_box_is_none():
    boxes, gt = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[[0.0, 0, 10, 40], [90.0, 90, 99, 99]]])
    assert match_boxes(boxes, gt, ALL, extent=0, min_best_iou=0.25).best_for.tolist() == [[0]]
    assert match_boxes(boxes, gt, ALL, extent=0, min_best_iou=0.26).best_for.tolist() == [[-1]]
    assert match_boxes(boxes, gt[:, 1:], ALL[:, 1:], extent=0).best_for.tolist() == [[-1]]


def test_boxes_that_take_no_part_leave_the_best_to_others():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0.0, 0, 10, 8]])
    gt = torch.tensor([[[0.0, 0, 10, 10], [0.0, 0, 1, 1]]])
    found = match_boxes(boxes, gt, ALL, extent=0, candidates=torch.tensor([[False, True]]))
    assert found.iou[0, 0] == 0
    assert found.best_for[0, 0] == -1
    assert found.best_for[0, 1] >= 0


@pytest.mark.parametrize("rows", [0, 3])
def test_no_ground_truth_is_no_match(rows):
    boxes = random_boxes(7)
    found = match_boxes(boxes, torch.zeros(2, rows, 4), torch.zeros(2, rows, dtype=torch.bool), extent=1)
    assert found.iou.tolist() == [[0.0] * 7] * 2
    assert found.index.tolist() == [[0] * 7] * 2
    assert found.best_for.tolist() == [[-1] * 7] * 2


def test_no_boxes_give_empty_rows():
    found = match_boxes(torch.zeros(0, 4), random_boxes(2, 3), torch.ones(2, 3, dtype=torch.bool), extent=0)
    assert found.iou.shape == found.index.shape == found.best_for.shape == (2, 0)


def test_boxes_without_area_overlap_nothing():
    empty = torch.zeros(1, 4)
    found = match_boxes(empty, torch.zeros(1, 2, 4), ALL, extent=0)
    assert found.iou.tolist() == [[0.0]]
    assert max_overlap_with(empty, torch.zeros(1, 2, 4), ALL, extent=0).tolist() == [[0.0]]


def test_share_inside_a_region_counts_the_boxs_own_area():
    boxes = torch.tensor([[0.0, 0, 9, 9], [0.0, 0, 99, 99]])
    regions = torch.tensor([[[0.0, 0, 9, 4], [0.0, 0, 99, 99]]])
    share = max_overlap_with(boxes, regions, torch.tensor([[True, False]]), extent=1)
    assert share.tolist() == [[0.5, pytest.approx(0.005)]]
    assert max_overlap_with(boxes, regions, ALL, extent=1).tolist() == [[1, 1]]
    assert max_overlap_with(boxes, regions[:, :0], ALL[:, :0], extent=1).tolist() == [[0, 0]]


# Kernel against definition: equal bit for bit.


def scene(n=2, m=700, g=9, device="cpu", shared=False, seed=0):
    """Boxes, padded ground truth, valid rows and candidates, with ties: some boxes are a ground truth itself."""
    r = torch.Generator().manual_seed(seed)
    start = torch.rand(n, max(m, g, 1), 2, generator=r) * 80
    boxes = torch.cat([start, start + torch.rand(n, max(m, g, 1), 2, generator=r) * 40], 2).round()
    gt = boxes[:, torch.randperm(max(m, g, 1), generator=r)[:g]]
    valid = torch.rand(n, g, generator=r) < 0.7
    candidates = torch.rand(n, m, generator=r) < 0.8
    boxes = boxes[0, :m] if shared else boxes[:, :m]
    return [t.to(device) for t in (boxes, gt, valid, candidates)]


def both(run):
    return harness.with_backend("compiled", run), harness.with_backend("reference", run)


def assert_same(ours, expected):
    for name in ("iou", "index", "best_for"):
        assert torch.equal(getattr(ours, name), getattr(expected, name)), name


@needs_kernels
@pytest.mark.parametrize("extent", [0.0, 1.0])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("g", [1, 9, 300])
def test_kernel_equals_reference(device, extent, shared, g):
    boxes, gt, valid, candidates = scene(device=device, shared=shared, g=g)
    for mask in (None, candidates):
        for least in (0.0, 0.4):
            assert_same(
                *both(
                    lambda mask=mask, least=least: match_boxes(
                        boxes, gt, valid, extent=extent, candidates=mask, min_best_iou=least
                    )
                )
            )
    ours, expected = both(lambda: max_overlap_with(boxes, gt, valid, extent=extent))
    assert torch.equal(ours, expected)


@needs_kernels
@given(
    n=st.integers(0, 3),
    m=st.sampled_from([0, 1, 2, 511, 512, 513, 1300]),
    g=st.integers(0, 12),
    shared=st.booleans(),
    extent=st.sampled_from([0.0, 1.0]),
    seed=st.integers(0, 99),
)
def test_kernel_equals_reference_for_any_size(n, m, g, shared, extent, seed):
    if n == 0 and shared:
        return
    boxes, gt, valid, candidates = scene(n, m, g, shared=shared, seed=seed)
    assert_same(*both(lambda: match_boxes(boxes, gt, valid, extent=extent, candidates=candidates)))
    ours, expected = both(lambda: max_overlap_with(boxes, gt, valid, extent=extent))
    assert torch.equal(ours, expected)


def test_nan_overlaps_nothing(each_backend):
    nan = float("nan")
    boxes = torch.tensor([[0.0, 0, 10, 10], [nan, 0, 10, 10], [20, 20, 30, 30]])
    gt = torch.tensor([[[0.0, 0, 10, 10], [0, nan, 10, 10], [20, 20, 30, 31]]])
    found = match_boxes(boxes, gt, torch.ones(1, 3, dtype=torch.bool), extent=1.0)
    assert found.iou[0, 1] == 0
    assert found.index.tolist() == [[0, 0, 2]]
    assert found.best_for.tolist() == [[0, -1, 2]]


@needs_kernels
def test_equal_bits_for_any_number_of_threads():
    boxes, gt, valid, candidates = scene(m=20000, g=40)
    threads = torch.get_num_threads()
    first = match_boxes(boxes, gt, valid, extent=1.0, candidates=candidates)
    for count in (1, 3):
        torch.set_num_threads(count)
        try:
            assert_same(match_boxes(boxes, gt, valid, extent=1.0, candidates=candidates), first)
        finally:
            torch.set_num_threads(threads)


@needs_kernels
def test_registration_passes_opcheck(device):
    boxes, gt, valid, candidates = scene(m=20, device=device)
    ops = torch.ops.detectron_libra
    for mask in (None, candidates):
        harness.check_op(ops.match_boxes.default, (boxes, gt, valid, mask, 1.0, 0.0))
    harness.check_op(ops.max_overlap_with.default, (boxes, gt, valid, 1.0))


@needs_kernels
def test_compiles_in_one_graph(device):
    boxes, gt, valid, candidates = scene(m=50, device=device)

    def run(boxes, gt):
        found = match_boxes(boxes, gt, valid, extent=1.0, candidates=candidates)
        return found.iou, found.index, found.best_for

    torch._dynamo.reset()
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    for got, expected in zip(compiled(boxes, gt), run(boxes, gt), strict=True):
        assert torch.equal(got, expected)


def test_wrong_arguments_are_refused(each_backend):
    boxes, gt, valid, candidates = scene(m=20)
    with pytest.raises(RuntimeError, match=r"gt must be \(N, G, 4\)"):
        match_boxes(boxes, gt[0], valid, extent=1.0)
    with pytest.raises(RuntimeError, match="boxes must be"):
        match_boxes(boxes[..., :3], gt, valid, extent=1.0)
    with pytest.raises(RuntimeError, match="valid must be"):
        match_boxes(boxes, gt, valid[:1], extent=1.0)
    with pytest.raises(RuntimeError, match="valid must be bool"):
        match_boxes(boxes, gt, valid.long(), extent=1.0)
    with pytest.raises(RuntimeError, match="candidates must be"):
        match_boxes(boxes, gt, valid, extent=1.0, candidates=candidates[:, :3])
    with pytest.raises(RuntimeError, match="mask must be"):
        max_overlap_with(boxes, gt, valid[:, :2], extent=1.0)


def test_scalar_formula_is_that_of_the_definition():
    formulas = pytest.importorskip("detectron_libra._math")
    boxes, gt, _, _ = scene(1, 40, 8)
    for extent in (0.0, 1.0):
        expected = pairwise_iou(boxes[0], gt[0], extent=extent).numpy()
        b, o = boxes[0].numpy(), gt[0].numpy()[:, None]
        args = [b[:, k] for k in range(4)] + [o[..., k] for k in range(4)]
        assert (formulas.match_overlap(*args, extent) == expected).all()
