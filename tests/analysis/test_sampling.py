# SPDX-License-Identifier: Apache-2.0
"""Who is sampled: the IoU of negatives by way of choosing, and positives per object and level, counted by hand."""

import numpy as np
import pytest
import torch

from detectron_libra.analysis.assigned import Assigned
from detectron_libra.analysis.sampling import NegativeCounts, PositiveCounts, choose, instance_counts
from detectron_libra.modeling.sampling import IoUSampling
from tests.modeling.scenes import targets


def assigned(
    iou, *, objectness=None, negatives=2, high=0.5, positive=None, index=None, level=None, drawn=None
):
    """One image of boxes with these IoUs; from ``high`` on they are positive."""
    iou = torch.tensor([iou])
    positive = iou >= high if positive is None else torch.tensor([positive])
    return Assigned(
        iou=iou,
        positive=positive,
        background=(iou >= 0) & (iou < high),
        drawn=positive if drawn is None else torch.tensor([drawn]),
        index=torch.zeros_like(iou, dtype=torch.int64) if index is None else torch.tensor([index]),
        objectness=torch.zeros_like(iou) if objectness is None else torch.tensor([objectness]),
        level=torch.zeros(iou.shape[1], dtype=torch.int64) if level is None else torch.tensor(level),
        residuals=torch.zeros(0, 4),
        negatives=torch.tensor([negatives]),
        low=0.0,
        high=high,
    )


def test_hard_negatives_are_those_that_are_taken_for_objects_most():
    a = assigned([0.0, 0.3, 0.1, 0.9, -1.0, 0.2], objectness=[0.1, 0.6, 0.7, 0.99, 0.99, 0.2])
    chosen = choose(a, IoUSampling())
    assert chosen["hard"].tolist() == [[False, True, True, False, False, False]]
    for mask in chosen.values():
        assert mask.sum() == 2 and not (mask & ~a.background).any()


def test_balanced_negatives_come_evenly_from_the_bins_and_random_ones_as_they_lie():
    torch.manual_seed(0)
    lies = [0.01] * 9000 + [0.2] * 600 + [0.4] * 400
    counts = NegativeCounts(IoUSampling(bins=3), high=0.5)
    counts.add(assigned(lies, objectness=lies, negatives=900))
    found = counts.tables()
    assert found["edges"] == pytest.approx(np.arange(0, 0.51, 0.05)) and found["above_iou"] == 0.05
    assert found["iou_balanced"]["count"] == found["random"]["count"] == found["hard"]["count"] == 900
    assert found["iou_balanced"]["above"] == pytest.approx(2 / 3, rel=1e-4)
    assert found["all"] == {"count": 10_000, "above": 0.1, "shares": [0.9, 0, 0, 0, 0.06, 0, 0, 0, 0.04, 0]}
    assert found["random"]["above"] == pytest.approx(0.1, abs=0.03)
    assert found["hard"]["above"] == 1 and found["hard"]["shares"][8] == pytest.approx(4 / 9, rel=1e-4)


def test_the_last_bin_ends_at_the_negative_threshold():
    assert NegativeCounts(IoUSampling(), high=0.4).edges[-2:] == pytest.approx([0.35, 0.4])
    assert NegativeCounts(IoUSampling(), high=0.3).edges == pytest.approx(np.arange(0, 0.31, 0.05))


def test_no_negatives_give_no_shares():
    counts = NegativeCounts(IoUSampling(), high=0.5)
    counts.add(assigned([0.9, 0.8]))
    assert counts.tables()["random"] == {"count": 0, "above": None, "shares": [None] * 10}


def test_positives_are_counted_per_object_level_size_and_class():
    found = targets([(0, 0, 10, 10, 1), (0, 0, 40, 50, 2), (5, 5, 9, 9, 1)])
    counts = PositiveCounts((3, 4), ("a", "b"), extent=0.0)
    a = assigned(
        [0.6, 0.7, 0.8, 0.9, 0.1],
        index=[0, 1, 1, 1, 2],
        level=[0, 0, 1, 1, 1],
        drawn=[True, True, False, True, False],
    )
    counts.add(a, found, torch.ones(1))
    tables = counts.tables()
    assert tables["per_level"] == {"P3": {"count": 2, "share": 0.5}, "P4": {"count": 2, "share": 0.5}}
    per_instance = tables["per_instance"]
    assert (per_instance["instances"], per_instance["mean"]) == (3, pytest.approx(4 / 3, rel=1e-4))
    assert per_instance["without"] == pytest.approx(1 / 3, rel=1e-4)
    assert per_instance["mean_by_size"] == {"small": 0.5, "medium": 3, "large": None}
    assert per_instance["mean_by_class"] == {"a": 0.5, "b": 3}
    assert per_instance["drawn"]["mean"] == 1 and per_instance["drawn"]["quantiles"]["max"] == 2


def test_sizes_are_those_of_the_original_image():
    counts = PositiveCounts((3,), ("a",), extent=0.0)
    counts.add(assigned([0.9]), targets([(0, 0, 20, 20, 1)]), torch.tensor([0.25]))
    assert counts.tables()["per_instance"]["mean_by_size"] == {"small": None, "medium": 1, "large": None}


def test_the_top_tenth_has_a_tenth_where_all_have_the_same():
    assert instance_counts(np.full(50, 7.0))["top_tenth_share"] == 0.1
    assert instance_counts(np.array([91.0] + [1.0] * 9))["top_tenth_share"] == 0.91
    assert instance_counts(np.zeros(4))["top_tenth_share"] is None
