# SPDX-License-Identifier: Apache-2.0
"""The page of a run shows what is known, and says what is not: one line, NaN, no test, proposals only."""

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectron_libra.report.history import over_time, read_history
from detectron_libra.report.run import RunContent, run_page
from detectron_libra.report.sets import Curve, Picture, SetReport, fits
from tests.report import reading

RATES = {"precision": 0.5, "recall": 0.25, "f1": 1 / 3}
CLASS = {**RATES, "best_threshold": 0.4, "best_f1": 0.5, "positives": 12, "AP": 0.3}
AT = {**CLASS, "macro": RATES, "threshold": 0.5, "iou": 0.5, "per_class": {"cat": CLASS, "<dog>": CLASS}}
BOX = {"AP": 0.321, "AP50": 0.6, "AP75": 0.2, "APs": 0.1, "APm": None, "APl": 0.4}
RESULTS = {"box": {**BOX, "per_class": {"cat": 0.4, "<dog>": None}}, "concept": {**AT, "mAP": 0.3}}
RESULTS["boxes_at_threshold"] = AT
#: Names that the files of a run use.
KEYS = [
    "iter",
    "lr",
    "loss",
    "loss_cls",
    "raw_loss_cls",
    "eval",
    "val",
    "box",
    "AP",
    "box_proposal",
    "AR@1000",
]


def step(iteration, **values):
    numbers = {
        "lr": 0.01,
        "loss": 1.5,
        "loss_cls": 1.0,
        "loss_bbox": 0.5,
        "raw_loss_cls": 1.0,
        "raw_loss_bbox": 1.0,
    }
    more = {
        "grad_norm": 2.0,
        "images_per_s": 8.0,
        "data_time": 0.1,
        "mem": 100,
        "eta": "0:00:01",
        "num_fg": 4.0,
    }
    return json.dumps({"iter": iteration, **numbers, **more, **values})


def evaluation(iteration, ap):
    return json.dumps({"iter": iteration, "eval": {"val": {"box": {"AP": ap, "AP50": None}}}})


def content(lines, tests=(), finished=True):
    return RunContent(
        title="Training of <b>",
        facts={"Model": "retinanet"},
        max_iter=40,
        eval_period=0,
        finished=finished,
        history=read_history(lines),
        tests=tests,
        changed=[("SOLVER.MAX_ITER", "40", "40000")],
        config_text="SOLVER: {MAX_ITER: 40}\n",
        sittings=["torch 2 on cpu"],
        versions={"torch": "2", "CUDA": None},
    )


def seen(run):
    """The page, that it is well-formed, and its text without the styles."""
    page = run_page(run)
    root = reading.parsed(page.partition("\n")[2])
    for plot in root.iter(f"{reading.SVG}svg"):
        assert plot.get("aria-label") and plot.get("viewBox").startswith("0 0 480 ")
    return page, reading.words(page)


def plots(page):
    root = reading.parsed(page.partition("\n")[2])
    return {svg.get("aria-label"): svg for svg in root.iter(f"{reading.SVG}svg")}


def test_a_whole_run_has_every_section_of_the_contract():
    curve = Curve("all classes", 24, [0.1, 0.5], [1.0, 0.6], (0.5, 0.6))
    picture = Picture("<1>.jpg", b"\xff\xd8", (64, 48), 3, 1, 2, 2 / 3)
    test = SetReport("val", RESULTS, [curve, replace(curve, name="cat")], [picture], [picture])
    page, text = seen(content([step(0), evaluation(19, 0.1), step(39)], [test]))
    assert {
        "Weighted losses over iterations",
        "Raw losses over iterations",
        "Learning rate over iterations",
        "Gradient norm over iterations",
        "Images per second over iterations",
        "Share of time spent waiting for data over iterations",
        "num_fg over iterations",
        "val: AP, AP50, AP75 over iterations",
        "val: precision over recall of boxes, all classes",
        "val: precision over recall of boxes, by class",
    } <= set(plots(page))
    for part in (
        "32.1",
        "cat",
        "<dog>",
        "Best images",
        "Worst images",
        "F1 66.7 %: 3 right, 1 wrong, 2 missed",
    ):
        assert part in text
    for part in (
        "SOLVER.MAX_ITER",
        "40000",
        "SOLVER: {MAX_ITER: 40}",
        "torch 2 on cpu",
        "40 of 40",
        "<1>.jpg",
    ):
        assert part in text
    assert text.count("no values") == 0 and "There are no final weights" not in text


def test_raw_and_weighted_losses_are_drawn_apart():
    page, _ = seen(content([step(0), step(20), step(39)]))
    legend = [t.text for t in plots(page)["Weighted losses over iterations"].iter(f"{reading.SVG}text")]
    assert legend[:3] == ["total", "cls", "bbox"]
    legend = [t.text for t in plots(page)["Raw losses over iterations"].iter(f"{reading.SVG}text")]
    assert legend[:2] == ["cls", "bbox"]


def test_a_run_without_tests_says_so():
    _, text = seen(content([step(0)]))
    assert "TEST.DATASETS names no data set" in text and "Nothing was measured in this run" in text


def test_a_stopped_run_says_how_far_it_came():
    _, text = seen(content([step(0), step(9)], finished=False))
    assert "There are no final weights: metrics.jsonl ends after 10 of 40 iterations" in text


@pytest.mark.parametrize("lines", [[], ["", "{", "[1]", '{"loss": 1}', '{"iter": "x"}']])
def test_a_run_without_a_readable_line_says_so(lines):
    _, text = seen(content(lines, finished=False))
    assert "metrics.jsonl has no line about a step" in text


def test_losses_that_are_not_finite_are_gaps_and_counted():
    lines = [step(0), step(20, loss=None, loss_cls=None), step(39), '{"iter": 50, "lo']
    page, text = seen(content(lines))
    assert (
        "A loss is not finite in 1 of 3 lines" in text and "1 lines of metrics.jsonl cannot be read" in text
    )
    assert len(list(plots(page)["Weighted losses over iterations"].iter(f"{reading.SVG}circle"))) == 4


def test_one_line_is_a_point():
    page, _ = seen(content([step(0)]))
    assert len(list(plots(page)["Learning rate over iterations"].iter(f"{reading.SVG}circle"))) == 1


def test_proposals_alone_have_recalls_and_a_word_about_what_they_lack():
    test = SetReport("val", {"box_proposal": {"AR@100": 0.25, "AR@1000": 0.5, "AR@1000s": None}})
    page, text = seen(content([step(0), step(39)], [test]))
    assert "Proposals have no classes" in text and "AR@1000 50.0" in text
    assert "val: AR@1000, AR@100 over iterations" in plots(page)


def test_average_recall_is_shown_where_it_is_known():
    recalls = {"AR1": 0.125, "AR10": 0.25, "AR100": 0.375, "ARs": None, "ARm": 0.5, "ARl": 0.625}
    known = {**RESULTS, "box": {**RESULTS["box"], **recalls}}
    _, text = seen(content([step(0)], [SetReport("val", known)]))
    assert "AR1 AR10 AR100 ARs ARm ARl box 12.5 25.0 37.5 \N{EN DASH} 50.0 62.5" in text
    _, text = seen(content([step(0)], [SetReport("val", RESULTS)]))
    assert "average recall" not in text and "AR1" not in text


def test_a_set_of_many_classes_stays_small_and_shows_those_with_most_objects():
    recall = [k / 5000 for k in range(5000)]
    curves = [Curve(f"class {k}", k, recall, recall, None) for k in range(80)]
    page, text = seen(
        content([step(0)], [SetReport("val", curves=[Curve("all", 1, recall, recall, None), *curves])])
    )
    assert "The 24 classes with most objects, of 80" in text
    drawn = {t.text for svg in plots(page).values() for t in svg.iter(f"{reading.SVG}text")}
    assert {"class 56", "class 79"} <= drawn and "class 55" not in drawn
    assert len(page) < 1_000_000


def test_notes_of_a_test_are_shown():
    _, text = seen(content([step(0)], [SetReport("val", notes=["No curves and no images: <gone>"])]))
    assert "No curves and no images: <gone>" in text


def test_results_over_time_end_with_those_of_the_final_weights():
    history = read_history([step(0), evaluation(9, 0.1), evaluation(19, 0.2)])
    final = {"val": {"box": {"AP": 0.3, "AP50": 0.5, "AP75": None}}}
    found = over_time(history, final, 39)
    assert found == {"val": {"AP": [(9, 0.1), (19, 0.2), (39, 0.3)], "AP50": [(39, 0.5)]}}
    assert over_time(history, final, None) == {"val": {"AP": [(9, 0.1), (19, 0.2)]}}


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=12,
)


@given(st.lists(st.dictionaries(st.sampled_from(KEYS), JSON, max_size=6), max_size=4), JSON)
@settings(max_examples=100, deadline=None)
def test_no_content_of_the_files_breaks_the_page(lines, results):
    tests = [SetReport("val", results)] if fits(results) else []
    seen(content(map(json.dumps, lines), tests, finished=False))


def test_results_of_another_layout_are_told_apart():
    assert fits(RESULTS) and not fits({}) and fits({"box_proposal": {"AR@1000": 0.5}})
    for key in RESULTS:
        assert not fits({**RESULTS, key: {}})
    assert (
        not fits([])
        and not fits(None)
        and not fits({**RESULTS, "box": {**RESULTS["box"], "per_class": {"x": 1}}})
    )


def test_a_sentence_about_what_to_change_stands_at_the_top():
    _, text = seen(
        replace(content([step(0)]), advice=["the loader was the <bottleneck>; set DATA.CACHE ram"])
    )
    assert "The loader was the <bottleneck>; set DATA.CACHE ram." in text
