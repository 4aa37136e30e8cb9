# SPDX-License-Identifier: Apache-2.0
"""Runs become means, deviations and marked differences, in JSON and in tables."""

import json

import numpy as np
import pytest

from detectron_libra.analysis.ablation import Run, as_json, flat, nested, summarise
from detectron_libra.analysis.ablation_table import cells, html, markdown
from detectron_libra.analysis.bootstrap import CONTAINS_ZERO, CONTAINS_ZERO_WITH_SEEDS

ABOUT = {
    "iterations": 30,
    "images_per_step": 8,
    "scales_px": [192, 240],
    "dataset": "scene",
    "images": 40,
    "resamples": 5,
    "threshold": 0.5,
    "iou": 0.5,
}
SPREAD = np.linspace(-0.01, 0.01, 5)


def run(parts, seed, ap, cat, minutes=2.0, spread=SPREAD) -> Run:
    """A run whose AP varies with the images as ``spread`` does."""
    resampled = {"AP": ap + spread, "per_class/a|b": np.full(5, np.nan if cat is None else cat)}
    return Run(tuple(parts), seed, {"AP": ap, "per_class/a|b": cat}, minutes, resampled)


@pytest.fixture
def runs():
    """The second part helps on every image; how the first one does depends on the image; the third varies by seed."""
    return [
        run((), 1, 0.50, 0.4),
        run((), 2, 0.52, 0.4),
        run(["sampling"], 1, 0.505, 0.4, spread=-SPREAD),
        run(["sampling"], 2, 0.525, 0.4, spread=-SPREAD),
        run(["loss"], 1, 0.60, 0.4, minutes=3),
        run(["loss"], 2, 0.62, 0.4, minutes=4),
        run(["pyramid"], 1, 0.51, None),
        run(["pyramid"], 2, 0.58, None),
    ]


def test_means_deviations_and_paired_differences(runs):
    base, sampling, loss, pyramid = summarise(runs)
    assert (base.parts, base.seeds) == ((), (1, 2))
    assert base.mean["AP"] == pytest.approx(0.51) and base.std["AP"] == pytest.approx(0.02 / 2**0.5)
    assert loss.mean["minutes"] == 3.5 and loss.differences["minutes"].delta == 1.5
    assert loss.differences["AP"].ci95 == pytest.approx((0.1, 0.1))
    low, high = sampling.differences["AP"].ci95
    assert (low, high) == pytest.approx((0.005 - 0.019, 0.005 + 0.019))
    assert pyramid.mean["per_class/a|b"] is None and pyramid.differences["per_class/a|b"] is None
    assert set(base.differences.values()) == {None}


def test_marks_say_which_interval_contains_zero(runs):
    _, sampling, loss, pyramid = summarise(runs)
    assert sampling.differences["AP"].mark == CONTAINS_ZERO
    assert loss.differences["AP"].mark == ""
    assert pyramid.differences["AP"].mark == CONTAINS_ZERO_WITH_SEEDS
    assert loss.differences["minutes"].mark == ""


def test_only_seeds_that_both_have_are_compared(runs):
    runs = [r for r in runs if (r.parts, r.seed) != ((), 2)]
    base, _, loss, _ = summarise(runs)
    assert base.seeds == (1,) and base.std["AP"] is None and loss.seeds == (1, 2)
    assert loss.differences["AP"].delta == pytest.approx(0.1) and loss.differences["AP"].ci95_seeds is None


def test_json_has_the_shape_of_the_contract(runs):
    written = json.loads(json.dumps(as_json(runs, summarise(runs), ABOUT), allow_nan=False))
    assert written["runs"][0] == {
        "parts": [],
        "seed": 1,
        "metrics": {"AP": 0.5, "per_class": {"a|b": 0.4}},
        "minutes": 2.0,
    }
    summary = written["summary"][2]
    assert summary["parts"] == ["loss"] and summary["delta"]["AP"] == pytest.approx(0.1)
    assert summary["ci95"]["AP"] == pytest.approx([0.1, 0.1]) and summary["mark"]["AP"] == ""
    assert summary["mean"]["per_class"] == {"a|b": 0.4} and written["about"] == ABOUT


def test_nested_and_flat_are_opposites():
    values = {"AP": 1, "per_class/a/b": 2, "per_class/c": None}
    assert nested(values) == {"AP": 1, "per_class": {"a/b": 2, "c": None}} and flat(nested(values)) == values


def test_cells_have_per_cent_and_marks(runs):
    head, seeds, ap, difference, *_ = cells(summarise(runs))
    assert head == ["", "baseline", "sampling", "loss", "pyramid"] and seeds[1] == "1, 2"
    assert ap == ["AP", "51.0 ± 1.4", "51.5 ± 1.4", "61.0 ± 1.4", "54.5 ± 4.9"]
    assert difference[:4] == ["difference", "", "+0.5 [-1.4, +2.4] ≈ 0", "+10.0 [+10.0, +10.0]"]
    assert difference[4].endswith("] (≈ 0)")
    assert cells(summarise(runs))[-2:] == [
        ["minutes", "2.0 ± 0.0", "2.0 ± 0.0", "3.5 ± 0.7", "2.0 ± 0.0"],
        ["difference", "", "+0.0", "+1.5", "+0.0"],
    ]


def test_markdown_and_html_escape_names_and_explain_the_marks(runs):
    text = markdown("Ablation on <scene>", summarise(runs), ABOUT)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in rows}) == 1 and "AP a\\|b" in text
    assert (
        "(≈ 0)" in text
        and "40 images" in text
        and "30 iterations of 8 images, shorter side 192, 240" in text
        and "With one seed" not in text
    )
    written = html("Ablation on <scene>", summarise(runs), ABOUT)
    assert "<h1>Ablation on &lt;scene&gt;</h1>" in written and "+10.0 [+10.0, +10.0]" in written


def test_one_seed_and_no_baseline_are_said(runs):
    text = markdown("t", summarise(runs[4:5]), ABOUT)
    assert "With one seed" in text and "No run of the baseline" in text and "| difference" not in text
