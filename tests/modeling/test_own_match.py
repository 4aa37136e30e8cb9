# SPDX-License-Identifier: Apache-2.0
"""Ground truth among the proposals: the same matches as from all pairs, from a number of pairs that stays linear."""

from dataclasses import replace

import pytest
import torch

from detectron_libra.modeling import own_match
from detectron_libra.modeling.detectors.regions import with_ground_truth
from detectron_libra.modeling.matching import match_proposals
from detectron_libra.modeling.own_match import first_equal
from detectron_libra.structures import Proposals, Targets

IMAGES, PROPOSALS = 3, 40


def scene(objects: int) -> tuple[Proposals, Targets]:
    """Proposals with the ground truth behind them; some objects are there twice, are crowds, or are padding."""
    random = torch.Generator().manual_seed(5)
    corners = torch.rand((IMAGES, PROPOSALS + objects, 2), generator=random) * 80
    sides = torch.rand((IMAGES, PROPOSALS + objects, 2), generator=random) * 30
    boxes = torch.cat([corners, corners + sides], -1)
    truth = boxes[:, PROPOSALS:]
    copies = torch.randint(objects, (IMAGES, objects // 3, 1), generator=random).expand(-1, -1, 4)
    truth[:, : objects // 3] = truth.gather(1, copies)
    classes = torch.randint(1, 5, (IMAGES, objects), generator=random)
    classes[1, objects // 2 :] = 0
    truth[1, objects // 2 :] = 0
    crowd = (torch.rand((IMAGES, objects), generator=random) < 0.2) & (classes > 0)
    targets = Targets(truth, classes, crowd)
    valid = torch.ones((IMAGES, PROPOSALS), dtype=torch.bool)
    found = Proposals(boxes[:, :PROPOSALS], torch.rand((IMAGES, PROPOSALS), generator=random), valid)
    return with_ground_truth(found, targets), targets


@pytest.mark.parametrize("objects", [1, 2, 37])
@pytest.mark.parametrize("crowds", [None, 0.5])
@pytest.mark.parametrize(("rule", "extent"), [("detectron", 1.0), ("continuous", 0.0)])
def test_the_matches_are_those_of_all_pairs(rule, extent, crowds, objects, monkeypatch):
    proposals, targets = scene(objects)
    options = {"threshold": 0.5, "extent": extent, "rule": rule, "crowd_threshold": crowds}
    expected = match_proposals(proposals.boxes, proposals.valid, targets, **options)
    monkeypatch.setattr(own_match, "FEW", 0)
    found = match_proposals(proposals.boxes, proposals.valid, targets, **options, own=objects)
    assert torch.equal(found.iou, expected.iou)
    counts = proposals.valid
    assert torch.equal(found.index[counts], expected.index[counts])
    assert torch.equal(found.box_index[counts], expected.box_index[counts])
    assert (found.iou[:, PROPOSALS:][targets.valid] == 1).any()


def test_boxes_without_area_or_with_nan_match_nothing(monkeypatch):
    monkeypatch.setattr(own_match, "FEW", 0)
    nan = float("nan")
    boxes = torch.tensor([[[5.0, 5, 5, 9], [nan, 0, 9, 9], [0, 0, 9, 9]]])
    targets = Targets(boxes, torch.ones((1, 3), dtype=torch.int64), torch.zeros((1, 3), dtype=torch.bool))
    options = {"threshold": 0.5, "extent": 0.0, "rule": "continuous"}
    expected = match_proposals(boxes, targets.valid, targets, **options)
    found = match_proposals(boxes, targets.valid, targets, **options, own=3)
    assert found.iou.tolist() == expected.iou.tolist() == [[0, 0, 1]]
    assert found.index.tolist() == expected.index.tolist() == [[0, 0, 2]]


def test_the_first_of_equal_boxes_stands_for_all_of_them_and_only_those_of_the_mask_count():
    a, b = [0.0, 0, 9, 9], [0.0, 0, 9, 8]
    boxes = torch.tensor([[a, b, a, a, b], [b, b, b, b, a]])
    mask = torch.tensor([[False, True, True, True, True], [True, True, False, True, True]])
    found = first_equal(boxes, mask)
    assert found[mask].tolist() == [1, 2, 2, 1, 0, 0, 0, 4]


@pytest.mark.parametrize("rule", ["detectron", "continuous"])
def test_pairs_that_are_compared_grow_with_the_ground_truth_and_not_with_its_square(rule, monkeypatch):
    pairs = []

    def counted(boxes, truth, mask, **options):
        pairs.append(boxes.shape[1] * truth.shape[1])
        return original(boxes, truth, mask, **options)

    original = own_match.match_boxes
    monkeypatch.setattr(own_match, "match_boxes", counted)

    def count(objects):
        pairs.clear()
        proposals, targets = scene(objects)
        targets = replace(targets, crowd=torch.zeros_like(targets.crowd))
        options = {"threshold": 0.5, "extent": 1.0, "rule": rule, "own": objects}
        match_proposals(proposals.boxes, proposals.valid, targets, **options)
        return sum(pairs)

    assert count(1200) == 4 * count(300)
