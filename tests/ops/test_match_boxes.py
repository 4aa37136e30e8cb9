# SPDX-License-Identifier: Apache-2.0
"""match_boxes: the best ground truth of a box, ties, padding, and boxes that do not take part."""

import pytest
import torch

from detectron_libra.ops.match_boxes import match_boxes, max_overlap_with

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
