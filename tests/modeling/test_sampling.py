# SPDX-License-Identifier: Apache-2.0
"""Sampling: numbers of positives and negatives, fixed shapes, Detectron's draw with replacement."""

from dataclasses import replace

import pytest
import torch

from detectron_libra.modeling.matching import AnchorMatch, ProposalMatch, RPNMatch
from detectron_libra.modeling.sampling import (
    InstanceSampling,
    IoUSampling,
    RoISampling,
    UniformSampling,
    sample_negatives,
    sample_rois,
    sample_rpn,
)


def rule(**changes):
    settings = {"batch_size": 64, "fg_fraction": 0.25, "fg_thresh": 0.5, "bg_hi": 0.5, "bg_lo": 0.0}
    return RoISampling(**(settings | changes))


def proposals(*iou):
    iou = torch.tensor(iou, dtype=torch.float32)
    return ProposalMatch(iou, *[torch.zeros_like(iou, dtype=torch.int64)] * 2, 1)


def check(match, sampled, size):
    """What holds of every sample: fixed shapes, no row twice, right side of the thresholds, sorted."""
    assert sampled.index.shape == sampled.valid.shape == sampled.positive.shape == (len(match.iou), size)
    iou = match.iou.gather(1, sampled.index)
    assert (iou[sampled.positive] >= 0.5).all()
    negative = sampled.valid & ~sampled.positive
    assert (iou[negative] < 0.5).all()
    assert (iou[negative] >= 0).all()
    assert not (sampled.positive & ~sampled.valid).any()
    order = sampled.positive.long() + sampled.valid.long()
    assert (order.diff(dim=1) <= 0).all()
    for index, valid in zip(sampled.index, sampled.valid, strict=True):
        assert len(index[valid].unique()) == valid.sum()


@pytest.mark.parametrize("iou", [UniformSampling(), IoUSampling(), IoUSampling(form="released", floor=0)])
@pytest.mark.parametrize(
    "instance", [UniformSampling(), InstanceSampling(), InstanceSampling(form="released")]
)
def test_second_stage_takes_a_quarter_of_positives_and_negatives_for_the_rest(iou, instance):
    """The rule: up to round(0.25 * BATCH_SIZE_PER_IM) positives, negatives fill the rest, both without replacement."""
    torch.manual_seed(0)
    match = proposals(*(torch.rand(3, 400) * torch.tensor([[1.0], [0.52], [0.49]])).tolist())
    index = torch.randint(0, 5, match.iou.shape)
    match = replace(match, index=index, num_gt=5)
    sampled = sample_rois(match, rule(negatives=iou, positives=instance))
    check(match, sampled, 64)
    assert sampled.valid.all()
    available = (match.iou >= 0.5).sum(1)
    got = sampled.positive.sum(1)
    assert got[1:].equal(available[1:].clamp(max=16))
    assert got[0] == 16 or instance == InstanceSampling(form="released")


def test_fewer_proposals_than_asked_leave_padding():
    """The rule: no box is drawn twice where there are too few."""
    match = proposals([0.9, 0.1, -1, 0.2], [-1, -1, -1, -1])
    sampled = sample_rois(match, rule())
    check(match, sampled, 64)
    assert sampled.index[0, :3].tolist() == [0, 1, 3]
    assert sampled.valid.sum(1).tolist() == [3, 0]
    assert sampled.positive.sum(1).tolist() == [1, 0]


def test_negatives_have_a_lower_end_and_positives_are_no_negatives():
    """The rule: positive from FG_THRESH on, background in [BG_THRESH_LO, BG_THRESH_HI)."""
    match = proposals([0.05, 0.15, 0.45, 0.55, 0.0])
    sampled = sample_rois(match, rule(bg_lo=0.1, bg_hi=0.6))
    assert sampled.index[0][sampled.valid[0]].tolist() == [3, 1, 2]


def test_iou_sampling_raises_the_share_of_hard_negatives():
    iou = torch.cat((torch.rand(1, 1900) * 0.05, 0.05 + torch.rand(1, 100) * 0.45), 1)
    match = ProposalMatch(iou, *[torch.zeros_like(iou, dtype=torch.int64)] * 2, 1)
    hard = [
        (iou.gather(1, s.index)[s.valid] > 0.05).float().mean()
        for s in (sample_rois(match, rule(negatives=how)) for how in (UniformSampling(), IoUSampling()))
    ]
    assert hard[0] < 0.2
    assert hard[1] > 0.5


def test_the_same_keys_or_seed_choose_the_same():
    match = proposals(torch.linspace(0, 1, 300).tolist())
    keys = torch.rand(1, 300)
    a, b = (sample_rois(match, rule(), keys=keys) for _ in range(2))
    assert a.index.equal(b.index)
    torch.manual_seed(5)
    c = sample_rois(match, rule())
    torch.manual_seed(5)
    assert sample_rois(match, rule()).index.equal(c.index)
    assert not sample_rois(match, rule()).index.equal(c.index)


def rpn_candidates(foreground, background, count=1000, images=2):
    rows = torch.arange(count).expand(images, -1)
    zero = torch.zeros(images, count)
    return RPNMatch(rows < foreground, rows >= count - background, zero.long(), zero)


def test_rpn_caps_positives_and_draws_negatives_with_replacement():
    """The rule: at most int(0.5 * 256) positives; the rest of 256 is drawn of the background, with replacement."""
    torch.manual_seed(0)
    match = rpn_candidates(200, 700)
    labels = sample_rpn(match, batch_size=256, fg_fraction=0.5)
    assert (labels == 1).sum(1).tolist() == [128, 128]
    negatives = (labels == 0).sum(1)
    # 128 draws of 700 hit 700 (1 - (1 - 1/700)^128) = 117 on average.
    assert ((negatives > 100) & (negatives < 128)).all()
    assert not ((labels == 0) & ~match.background).any()
    assert not ((labels == 1) & ~match.foreground).any()


def test_draws_with_replacement_hit_every_candidate_alike():
    match = rpn_candidates(0, 40, 60, images=3000)
    labels = sample_rpn(match, batch_size=8, fg_fraction=0.5)
    hits = (labels == 0).float().mean(0)
    assert (hits[:20] == 0).all()
    assert hits[20:].tolist() == pytest.approx([1 - (1 - 1 / 40) ** 8] * 40, abs=0.04)


@pytest.mark.parametrize("with_replacement", [True, False])
def test_rpn_takes_all_negatives_where_there_are_few(with_replacement):
    labels = sample_rpn(
        rpn_candidates(3, 50), batch_size=256, fg_fraction=0.5, with_replacement=with_replacement
    )
    assert (labels == 1).sum(1).tolist() == [3, 3]
    assert (labels == 0).sum(1).tolist() == [50, 50]
    none = sample_rpn(
        rpn_candidates(3, 0), batch_size=256, fg_fraction=0.5, with_replacement=with_replacement
    )
    assert (none == 0).sum() == 0


def test_rpn_anchor_that_is_both_becomes_background_in_detectron_only():
    """The rule: background is labelled last, so a forced positive below 0.3 that is drawn turns into background."""
    few = rpn_candidates(10, 12, 12)
    assert (sample_rpn(few, batch_size=24, fg_fraction=0.5) == 0).all()
    labels = sample_rpn(few, batch_size=24, fg_fraction=0.5, with_replacement=False)
    assert labels.tolist() == [[1] * 10 + [0] * 2] * 2


def test_rpn_without_replacement_gives_exactly_the_number():
    labels = sample_rpn(rpn_candidates(200, 700), batch_size=256, fg_fraction=0.5, with_replacement=False)
    assert (labels >= 0).sum(1).tolist() == [256, 256]
    assert (labels == 1).sum(1).tolist() == [128, 128]


def test_dense_negatives_are_chosen_by_iou_part():
    iou = torch.linspace(0, 0.4, 3001)[:-1].repeat(2, 1) ** 2 / 0.4
    labels = torch.zeros_like(iou, dtype=torch.int64)
    labels[1, 30:] = -1
    match = AnchorMatch(labels, torch.zeros_like(labels), iou, torch.tensor(1.0))
    chosen = sample_negatives(match, 300, IoUSampling(), high=0.4)
    assert chosen.sum(1).tolist() == [300, 30]
    for k in range(3):
        part = (iou[0] >= k * 0.4 / 3) & (iou[0] < (k + 1) * 0.4 / 3)
        assert (chosen[0] & part).sum() == 100
    assert sample_negatives(match, 300, UniformSampling(), high=0.4).sum(1).tolist() == [300, 30]
