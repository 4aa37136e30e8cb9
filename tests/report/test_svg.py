# SPDX-License-Identifier: Apache-2.0
"""Plots show the numbers they are given, in their place, and stay inside of the picture whatever these are."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectron_libra.report.svg import (
    Series,
    bar_plot,
    heat_map,
    histogram,
    line_plot,
    precision_recall_plot,
)
from tests.report import reading

ANY = st.none() | st.floats(allow_nan=True, allow_infinity=True)
EDGES = [0.0, 0.5, 1.0, 2.0]


def test_a_line_goes_through_its_points_in_proportion():
    svg = line_plot([Series("loss", [0, 10, 20], [0.0, 1.0, 0.5])], title="loss")
    ((first, second, third),) = reading.curves(svg, "line")
    assert second[0] - first[0] == pytest.approx(third[0] - second[0], abs=0.02)
    assert first[1] - third[1] == pytest.approx((first[1] - second[1]) / 2, abs=0.02)
    assert {"0", "0.2", "1", "10", "20"} <= set(reading.texts(svg))


def test_decades_are_equally_far_apart_on_a_logarithmic_axis():
    svg = line_plot([Series("", [1, 2, 3], [1e-4, 1e-2, 1.0])], title="rate", log_y=True)
    ((first, second, third),) = reading.curves(svg, "line")
    assert first[1] - second[1] == pytest.approx(second[1] - third[1], abs=0.02)
    assert {"1e-4", "0.01", "1"} <= set(reading.texts(svg))


def test_a_value_that_is_none_nan_or_off_the_scale_is_a_gap_and_a_lone_point_a_dot():
    y = [1.0, 2.0, None, 3.0, math.nan, 4.0, 5.0, -1.0]
    svg = line_plot([Series("", list(range(8)), y)], title="gaps", log_y=True)
    assert [len(part) for part in reading.curves(svg, "line")] == [2, 2]
    assert len(reading.dots(svg)) == 1


@pytest.mark.parametrize("y", [[], [None], [math.nan, math.inf]])
def test_a_plot_without_a_value_says_so(y):
    assert "no values" in reading.texts(line_plot([Series("a", range(len(y)), y)], title="nothing"))
    assert "no values" in reading.texts(histogram(range(len(y) + 1), {"a": y}, title="nothing"))


def test_a_long_series_keeps_its_extremes_and_stays_small():
    count = 100_000
    y = [math.sin(k) for k in range(count)]
    y[54_321] = 40.0
    svg = line_plot([Series("", range(count), y)], title="spike")
    flat = line_plot([Series("", [0, 1], [-1.0, 40.0])], title="ends")
    assert len(svg) < 60_000
    ends = [point[1] for part in reading.curves(flat, "line") for point in part]
    assert min(point[1] for part in reading.curves(svg, "line") for point in part) == min(ends)


def test_a_legend_names_several_series_and_cuts_long_names():
    names = ["a", "b" * 60, *(f"class {k}" for k in range(20))]
    svg = line_plot([Series(name, [0, 1], [0, 1]) for name in names], title="many")
    assert "b" * 31 + "…" in reading.texts(svg) and reading.is_inside(svg)
    assert "alone" not in reading.texts(line_plot([Series("alone", [0, 1], [0, 1])], title="one"))


def test_precision_and_recall_span_0_to_1_with_lines_of_equal_f1():
    svg = precision_recall_plot([Series("cat", [0.0, 1.0], [1.0, 0.5])], title="cat")
    (curve,) = reading.curves(svg, "c1")[-1:]
    guides = reading.curves(svg, "guide")
    left, top, right, bottom = curve[0][0], curve[0][1], curve[1][0], 2 * curve[1][1] - curve[0][1]
    assert len(guides) == 4
    for f1, line in zip((0.2, 0.4, 0.6, 0.8), guides, strict=True):
        for x, y in line:
            recall, precision = (x - left) / (right - left), (bottom - y) / (bottom - top)
            assert 2 * recall * precision / (recall + precision) == pytest.approx(f1, abs=0.002)


def test_bars_are_as_long_as_their_values_on_both_sides_of_0():
    svg = bar_plot(
        ["a", "b"], {"up": [1.0, -2.0], "no": [None, 0.5]}, title="bars", errors={"up": [0.5, None]}
    )
    assert reading.is_inside(svg)
    widths = sorted(width for _, _, width, _ in reading.bars(svg))
    assert [w / widths[0] for w in widths] == pytest.approx([1, 2, 4], abs=0.01)
    assert {"a", "b", "1", "-2", "0.5", "–"} <= set(reading.texts(svg))


def test_a_histogram_is_as_high_as_its_counts_over_bins_as_wide_as_theirs():
    svg = histogram(EDGES, {"boxes": [1, 4, 0]}, title="sizes")
    (area,) = [n.get("d") for n in reading.parsed(svg).iter(f"{reading.SVG}path") if "area" in n.get("class")]
    numbers = [float(v) for v in reading.NUMBERS.findall(area)]
    x0, ground, y1, x1, y2, x2, y3, x3, last = numbers
    assert ground == y3 == last
    assert ground - y2 == pytest.approx(4 * (ground - y1), abs=0.05)
    assert x3 - x2 == pytest.approx(2 * (x1 - x0), abs=0.05) and x2 - x1 == pytest.approx(x1 - x0, abs=0.05)


def test_arrays_are_drawn_as_lists_are():
    values = [1.0, 3.0, 2.0]
    array = np.array(values, np.float32)
    draw = lambda x, y: line_plot([Series("", x, y)], title="line")  # noqa: E731
    assert draw(np.arange(3), array) == draw([0, 1, 2], values)
    bars = lambda y: bar_plot("abc", {"n": y}, errors={"n": y}, title="bars")  # noqa: E731
    assert bars(array) == bars(values)
    counts = array.astype(np.int64)
    assert histogram(np.arange(4), {"n": counts}, title="h") == histogram(
        range(4), {"n": [1, 3, 2]}, title="h"
    )
    names = {"rows": ["a"], "columns": ["b", "c", "d"], "title": "heat"}
    assert heat_map(array[None], **names) == heat_map([values], **names)


def test_a_heat_map_writes_every_value_and_fills_cells_by_size():
    svg = heat_map([[1.0, -0.5], [None, 0.0]], rows=["P3", "P4"], columns=["P3", "P4"], title="levels")
    groups = [n for n in reading.parsed(svg).iter(f"{reading.SVG}g") if "heat" in n.get("class", "")]
    filled = [float(g.find(f"{reading.SVG}rect").get("fill-opacity")) for g in groups]
    assert filled[0] > filled[1] > filled[2] == filled[3]
    assert [g.get("class") for g in groups] == ["heat above", "heat below", "heat above", "heat above"]
    assert [t for t in reading.texts(svg) if t not in ("P3", "P4")] == ["1", "-0.5", "–", "0"]


def test_names_are_escaped_and_the_picture_is_named_for_those_who_cannot_see_it():
    bad = '<script>alert("&")</script>\x00\ud800'
    for svg in (
        line_plot([Series(bad, [0, 1], [0, 1]), Series("b", [0], [0])], title=bad, x_label=bad, y_label=bad),
        bar_plot([bad], {bad: [1.0], "b": [2.0]}, title=bad, x_label=bad),
        heat_map([[1.0]], rows=[bad], columns=[bad], title=bad),
        histogram(EDGES, {bad: [1, 2, 3], "b": [1, 2, 3]}, title=bad),
    ):
        root = reading.parsed(svg)
        assert "<script" not in svg
        assert root.get("role") == "img" and "alert" in root.get("aria-label")
        assert root.find(f"{reading.SVG}title").text.startswith("<script>")


@given(st.lists(st.tuples(ANY, ANY), max_size=6), st.booleans(), st.booleans())
@settings(max_examples=150, deadline=None)
def test_no_number_breaks_a_line(points, log_x, log_y):
    series = Series("a", [x for x, _ in points], [y for _, y in points])
    assert reading.is_inside(line_plot([series], title="any", log_x=log_x, log_y=log_y))


@given(st.lists(st.tuples(ANY, ANY), max_size=5), st.booleans())
@settings(max_examples=150, deadline=None)
def test_no_number_breaks_bars_and_cells(rows, log):
    labels = [f"row {k}" for k in range(len(rows))]
    groups = {"a": [a for a, _ in rows], "b": [b for _, b in rows]}
    assert reading.is_inside(bar_plot(labels, groups, title="any", errors={"a": groups["b"]}))
    assert reading.is_inside(heat_map(rows, rows=labels, columns=["a", "b"], title="any"))
    assert reading.is_inside(histogram(range(len(rows) + 1), groups, title="any", log_y=log))
