# SPDX-License-Identifier: Apache-2.0
"""Every operator has cases, and what they compare computes the same."""

from pathlib import Path

import pytest
import torch

from detectron_libra.benchmarks import cases, correct
from detectron_libra.benchmarks.case import Setup
from detectron_libra.benchmarks.sizes import LARGE, SMALL, grid_boxes, random_boxes

ROOT = Path(__file__).resolve().parents[2]
#: A part of the losses' backward pass, no operator that anybody calls.
WITHOUT_CASES = {"scale_gradient"}
QUICK = cases.plan(cases.NAMES, Setup(quick=True))


def test_every_operator_has_cases():
    folders = {path.name for path in (ROOT / "csrc" / "ops").iterdir() if path.is_dir()}
    packages = {path.parent.name for path in (ROOT / "detectron_libra/ops").glob("*/reference.py")}
    assert set(cases.NAMES) == (folders | packages) - WITHOUT_CASES


@pytest.mark.parametrize("case", QUICK, ids=lambda case: case.title.replace(" ", "-"))
def test_ours_computes_what_is_expected_and_so_does_eager(case):
    problem = case.build()
    right = correct.expected(problem)
    assert correct.wrong(problem, problem.ours, right) is None
    if case.op == "sample_by_iou":  # draws other boxes, but as many
        assert torch.equal(problem.eager(*problem.inputs).sum(1), right[0].sum(1))
    elif case.dtype == "float32":
        assert correct.wrong(problem, problem.eager, right) is None
    assert problem.bytes_fwd > 0 and (problem.bytes_fwdbwd > problem.bytes_fwd) == bool(problem.leaves)


@pytest.mark.parametrize("setup", [Setup(), Setup(full=True), Setup(device="cuda")], ids=str)
def test_names_begin_with_the_size_and_are_told_apart(setup):
    plan = cases.plan(cases.NAMES, setup)
    assert len({case.title for case in plan}) == len(plan)
    sizes = {case.name.split()[0] for case in plan}
    allowed = {"800x1344_b2", "800x1344_b16", "320x320_b16", "512", "200000"}
    assert sizes <= allowed and sizes >= allowed - {"800x1344_b16"}
    assert ("800x1344_b16" in sizes) == (setup.device == "cuda")


def test_full_measures_at_least_what_the_default_does():
    default, full = (
        {case.title for case in cases.plan(cases.NAMES, Setup(full=full))} for full in (False, True)
    )
    assert default < full


def test_a_gradient_that_is_off_is_seen():
    problem = next(case for case in QUICK if case.op == "pyramid").build()
    right = correct.expected(problem)
    before = [t.clone() for t in right]
    assert correct.wrong(problem, problem.ours, right) is None
    assert all(torch.equal(a, b) for a, b in zip(right, before, strict=True))  # the check changes nothing
    right[-1].view(-1)[0] += 1
    assert "output or gradient 9: 1 of 8 elements differ" in correct.wrong(problem, problem.ours, right)
    right[-1].fill_(float("nan"))
    assert "8 of 8" in correct.wrong(problem, problem.ours, right)


def test_boxes_lie_in_the_image_and_anchors_are_as_many_as_retinanets():
    boxes = random_boxes(Setup(), (1000,), LARGE)
    assert (boxes[:, :2] >= 0).all() and (boxes[:, 2] <= 1344).all() and (boxes[:, 3] <= 800).all()
    assert ((boxes[:, 2:] - boxes[:, :2]) > 15).all()
    assert grid_boxes(Setup(), LARGE, range(3, 8), 9).shape == (201600, 4)
    assert SMALL.cells(7) == (3, 3)
