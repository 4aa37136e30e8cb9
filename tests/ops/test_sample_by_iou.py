# SPDX-License-Identifier: Apache-2.0
"""sample_by_iou and its kin: the published sampler's statistics, the paper's equal parts, fixed shapes."""

import numpy as np
import pytest
import torch

from detectron_libra.ops.sample_by_iou import sample_by_instance, sample_by_iou, sample_uniform
from detectron_libra.ops.sample_by_iou.reference import rank_in_group, second_keys
from tests import golden

NEGATIVE_CASES = [
    "typ_first",
    "typ_later",
    "typ_random",
    "typ_bins1",
    "typ_bins2",
    "typ_bins5",
    "typ_bins7",
    "typ_floor01_f025",
    "typ_floor0_f02",
    "typ_floor02_f1",
    "typ_floor045_f0",
    "typ_nogtprop",
    "typ_negposub1",
    "fewhard_first",
    "fewhard_later",
    "nogt_first",
    "nogt_later",
    "fewer_than_wanted",
    "nozero_later",
]


def rows(values, seeds):
    return torch.from_numpy(np.asarray(values)).expand(seeds, -1)


def drawn_keys(seeds, count, seed=0):
    return torch.rand(seeds, count, generator=torch.Generator().manual_seed(seed))


def load_case(file, tag):
    """IoU and ground truth (0: none, i + 1) of [ground truth, proposals], the case, the counts."""
    data, meta = golden.load(file)
    case = next(c for c in meta["parameters"]["cases"] if c["tag"] == tag)
    iou, gt = data[f"{tag}_max_overlaps"], data[f"{tag}_gt_inds"]
    if case["add_gt_as_proposals"]:
        own = np.arange(case["num_gts"]) + 1
        iou = np.concatenate((np.ones(len(own), iou.dtype), iou))
        gt = np.concatenate((own, gt))
    return iou, gt, case, data[f"{tag}_sel_count"], data[f"{tag}_counts"]


def options_of(case):
    sampler = case["neg_sampler"]
    floor = sampler["floor_thr"]
    if floor == -1 and not case["fresh_sampler_each_seed"]:
        floor = 0  # the reference overwrites its option in the first call
    return {"bins": sampler["num_bins"], "floor": floor, "floor_fraction": sampler["floor_fraction"]}


def inclusion_probability(iou, negative, num, bins, floor, floor_fraction, top=None):
    """Chance of each box in closed form: the published sampler's, or the paper's with ``top`` = its upper end."""
    p = np.zeros(len(iou))
    if negative.sum() <= num:
        return negative.astype(float)
    low = negative & ((iou < floor) if floor > 0 else (iou == 0) if floor == 0 else False)
    high = negative & ~low
    wanted = int(num * (1 - floor_fraction))
    if high.sum() <= wanted:
        p[high] = 1
    else:
        quota = np.zeros(len(iou))
        start = max(floor, 0)
        width = ((iou.max() if top is None else np.float32(top)) - np.float32(start)) / np.float32(bins)
        share = wanted // bins
        for k in range(bins if bins > 1 else 0):
            part = high & (iou >= np.float32(start + k * width)) & (iou < np.float32(start + (k + 1) * width))
            quota[part] = min(1, share / max(part.sum(), 1))
        missing, left = wanted - quota.sum(), high.sum() - quota.sum()
        p[high] = (quota + (1 - quota) * missing / left)[high]
    p[low] = min(1, (num - p.sum()) / max(low.sum(), 1))
    short, left = num - p.sum(), negative.sum() - p.sum()
    p[negative] += ((1 - p) * short / max(left, 1e-9))[negative]
    return p


def assert_follows(counts, p, seeds):
    """Counts of ``seeds`` draws agree with chances: certain ones exactly, the others by their deviations."""
    certain = (p < 1e-9) | (p > 1 - 1e-9)
    assert (counts[certain] == np.round(p[certain]) * seeds).all()
    if certain.all():
        return
    p, counts = p[~certain], counts[~certain]
    z = (counts - seeds * p) / np.sqrt(seeds * p * (1 - p))
    assert np.abs(z).max() < 5.5
    assert 0.85 < z.std() < 1.15


@pytest.mark.parametrize("tag", NEGATIVE_CASES)
def test_released_form_chooses_as_often_as_the_published_sampler(each_backend, tag):
    iou, gt, case, reference, counts = load_case("iou_sampling_neg", tag)
    negative, positives = gt == 0, (gt > 0).sum()
    num = case["num"] - min(positives, int(case["num"] * case["pos_fraction"]))
    if case["neg_pos_ub"] >= 0:
        num = min(num, int(case["neg_pos_ub"] * max(1, positives)))
    seeds = case["seeds"]
    arguments = rows(negative, seeds), torch.full((seeds,), int(num)), drawn_keys(seeds, len(iou))
    if case["sampler"] == "random":
        chosen = sample_uniform(*arguments)
        p = negative * min(1.0, num / negative.sum())
    else:
        chosen = sample_by_iou(rows(iou, seeds), *arguments, form="released", **options_of(case))
        p = inclusion_probability(iou, negative, num, **options_of(case))
    assert (chosen.sum(1).numpy() == counts[:, 1]).all()
    assert_follows(reference[negative], p[negative], seeds)
    assert_follows(chosen.sum(0).numpy(), p, seeds)


def test_released_form_has_the_official_codes_histogram():
    data, meta = golden.load("iou_sampling_official")
    iou, negative = data["max_overlaps"], data["gt_inds"] == 0
    edges = meta["parameters"]["hist_edges"]
    seeds = 200
    for name, floor in (("off_2019_05_387fdb3", -1), ("off_final_first", -1), ("off_final_later", 0)):
        chosen = sample_by_iou(
            rows(iou, seeds),
            rows(negative, seeds),
            torch.full((seeds,), 384),
            drawn_keys(seeds, len(iou)),
            form="released",
            floor=floor,
        )
        ours = np.stack([np.histogram(iou[row], edges)[0] for row in chosen.numpy()])
        error = np.sqrt(ours.var(0) / len(ours) + data[name].var(0) / len(data[name]))
        assert (np.abs(ours.mean(0) - data[name].mean(0)) <= 4.5 * error + 1e-9).all(), name


def even_iou(count=900, below=0.5):
    return torch.linspace(0, below, count + 1)[:-1].repeat(3, 1)


def test_paper_form_takes_the_same_number_from_each_part(each_backend):
    iou = even_iou() ** 2 / 0.5  # most boxes have little IoU
    every = torch.ones_like(iou, dtype=torch.bool)
    chosen = sample_by_iou(iou, every, torch.full((3,), 90), drawn_keys(*iou.shape), bins=3, high=0.5)
    for k in range(3):
        part = (iou >= k * 0.5 / 3) & (iou < (k + 1) * 0.5 / 3)
        assert (chosen & part).sum(1).tolist() == [30] * 3


@pytest.mark.parametrize("bins", [1, 2, 3, 5])
@pytest.mark.parametrize(("floor", "fraction"), [(-1, 0.0), (0, 0.0), (0.1, 0.3)])
def test_paper_form_chooses_as_often_as_its_closed_form(each_backend, bins, floor, fraction):
    seeds, generator = 600, np.random.default_rng(bins)
    iou = (0.5 * generator.random(300) ** 3 * (generator.random(300) > 0.2)).astype(np.float32)
    iou = np.concatenate((iou, np.ones(4, np.float32)))  # ground truth among the boxes changes nothing
    negative, options = iou < 0.5, {"bins": bins, "floor": floor, "floor_fraction": fraction}
    chosen = sample_by_iou(
        rows(iou, seeds),
        rows(negative, seeds),
        torch.full((seeds,), 90),
        drawn_keys(seeds, len(iou)),
        **options,
    )
    assert (chosen.sum(1) == 90).all()
    p = inclusion_probability(iou, negative, 90, **options, top=0.5)
    assert_follows(chosen.sum(0).numpy(), p, seeds)


def test_paper_form_ignores_the_ground_truth_that_empties_the_released_forms_last_part():
    iou = torch.cat((even_iou(), torch.ones(3, 1)), 1)
    negative = iou < 0.5
    arguments = iou, negative, torch.full((3,), 300), drawn_keys(*iou.shape)
    upper = iou >= 1 / 3
    paper = sample_by_iou(*arguments, high=0.5)
    released = sample_by_iou(*arguments, form="released")
    assert (paper & upper).sum(1).tolist() == [100] * 3
    assert ((released & upper).sum(1) > 110).all()


def test_what_a_part_lacks_comes_from_the_rest_of_the_others(each_backend):
    iou = torch.tensor([[0.1] * 40 + [0.2] * 40 + [0.45] * 2])
    every = torch.ones_like(iou, dtype=torch.bool)
    chosen = sample_by_iou(iou, every, torch.tensor([31]), drawn_keys(1, 82), bins=3, high=0.5)
    assert chosen.sum() == 31
    assert chosen[0, 80:].all()
    assert chosen[0, :40].sum() >= 10
    assert chosen[0, 40:80].sum() >= 10


@pytest.mark.parametrize("form", ["paper", "released"])
@pytest.mark.parametrize("floor", [-1, 0, 0.2])
def test_every_image_gets_its_own_number(each_backend, form, floor):
    torch.manual_seed(0)
    iou = torch.rand(4, 200) * 0.5 * (torch.rand(4, 200) > 0.3)
    candidates = torch.rand(4, 200) > 0.5
    candidates[3] = False
    num = torch.tensor([0, 1, 500, 7])
    chosen = sample_by_iou(
        iou, candidates, num, torch.rand(4, 200), form=form, floor=floor, floor_fraction=0.3
    )
    assert chosen.sum(1).tolist() == [0, 1, candidates[2].sum(), 0]
    assert not (chosen & ~candidates).any()


@pytest.mark.parametrize("tag", ["manypos", "manygt", "exact3"])
def test_instance_sampling_follows_the_published_code_or_the_paper(each_backend, tag):
    _, gt, case, reference, counts = load_case("iou_sampling_pos", tag)
    positive, num, seeds = gt > 0, int(case["num"] * case["pos_fraction"]), case["seeds"]
    arguments = (
        rows(np.maximum(gt - 1, 0), seeds),
        rows(positive, seeds),
        torch.full((seeds,), num),
        drawn_keys(seeds, len(gt)),
    )
    released = sample_by_instance(*arguments, form="released", num_gt=case["num_gts"])
    ours = released.sum(1).numpy()
    error = np.sqrt(ours.var() / seeds + counts[:, 0].var() / seeds)
    assert abs(ours.mean() - counts[:, 0].mean()) < 4 * error + 1e-9
    assert (released.sum(1) <= num).all()
    a, b = released.sum(0).numpy()[positive] / seeds, reference[positive] / seeds
    mean = (a + b) / 2
    uncertain = (mean > 0) & (mean < 1)
    z = ((a - b) / np.sqrt(mean * (1 - mean) * 2 / seeds + 1e-12))[uncertain]
    assert np.abs(z).max() < 5.5
    assert 0.85 < z.std() < 1.15

    paper = sample_by_instance(*arguments, num_gt=case["num_gts"])
    assert (paper.sum(1) == num).all()
    share = round(num / len(np.unique(gt[positive]))) + 1
    available = np.bincount(gt[positive], minlength=case["num_gts"] + 1)[1:]
    if np.minimum(share, available).sum() <= num:
        for g in range(case["num_gts"]):
            got = (paper & (arguments[0] == g) & arguments[1]).sum(1).numpy()
            assert (got >= min(share, available[g])).all()


def test_instance_sampling_drops_what_is_too_much_fairly(each_backend):
    # Two instances: shares of 4 each, of which 2 of 8 have to go.
    index = torch.tensor([0] * 30 + [1] * 5).expand(4000, -1)
    every = torch.ones(4000, 35, dtype=torch.bool)
    chosen = sample_by_instance(index, every, torch.full((4000,), 6), drawn_keys(4000, 35), num_gt=2)
    assert (chosen.sum(1) == 6).all()
    assert chosen[:, :30].sum().item() / 4000 == pytest.approx(3, abs=0.06)


@pytest.mark.parametrize("form", ["paper", "released"])
def test_few_positives_are_all_taken(each_backend, form):
    candidates = torch.tensor([[True, False, True], [False, False, False]])
    index = torch.tensor([[1, 0, 1], [0, 0, 0]])
    chosen = sample_by_instance(
        index, candidates, torch.tensor([2, 2]), torch.rand(2, 3), form=form, num_gt=2
    )
    assert chosen.equal(candidates)


def test_rank_counts_within_the_group():
    group = torch.tensor([[1, 0, 1, 1, 0]])
    keys = torch.tensor([[0.9, 0.5, 0.1, 0.1, 0.2]])
    assert rank_in_group(group, keys, 3).tolist() == [[2, 1, 0, 1, 0]]


def test_second_keys_are_uniform_and_tell_nothing_about_the_first():
    keys = drawn_keys(1, 200_000)
    again = second_keys(keys)
    assert again.min() >= 0
    assert again.max() < 1
    table = np.histogram2d(keys[0].numpy(), again[0].numpy(), bins=10, range=[[0, 1], [0, 1]])[0]
    assert np.abs(table - 2000).max() < 5 * np.sqrt(2000)


def test_the_same_keys_choose_the_same():
    iou, keys = even_iou(), drawn_keys(3, 900)
    every = torch.ones_like(iou, dtype=torch.bool)
    draws = [sample_by_iou(iou, every, torch.full((3,), 50), keys) for _ in range(2)]
    assert draws[0].equal(draws[1])


def test_no_boxes_and_unknown_forms(each_backend):
    none = torch.zeros(2, 0)
    assert sample_by_iou(none, none.bool(), torch.tensor([3, 3]), none).shape == (2, 0)
    assert sample_uniform(none.bool(), torch.tensor([3, 3]), none).shape == (2, 0)
    with pytest.raises(ValueError, match="form"):
        sample_by_iou(none, none.bool(), torch.tensor([3, 3]), none, form="best")


def test_the_papers_parts_begin_where_negatives_begin(each_backend):
    """With negatives from 0.3 on, thirds of [0.3, 0.5) give the same number each; thirds of [0, 0.5) would not."""
    iou = torch.linspace(0.3, 0.4999, 900)[None]
    chosen = sample_by_iou(
        iou,
        torch.ones_like(iou, dtype=torch.bool),
        torch.tensor([90]),
        torch.rand(iou.shape, generator=torch.Generator().manual_seed(0)),
        high=0.5,
        low=0.3,
    )
    assert [int(chosen[0, k * 300 : (k + 1) * 300].sum()) for k in range(3)] == [30, 30, 30]
