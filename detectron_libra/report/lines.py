# SPDX-License-Identifier: Apache-2.0
"""Plots of curves: over iterations, and precision over recall."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from detectron_libra.report.axes import Axis, make_axis
from detectron_libra.report.frame import (
    COLOURS,
    HEIGHT,
    colour_class,
    frame_for,
    horizontal_axis,
    legend,
    nothing,
    picture,
    vertical_axis,
)
from detectron_libra.report.markup import Html, element, pixels

#: F1 of the thin lines behind precision and recall.
F1_LINES = (0.2, 0.4, 0.6, 0.8)


@dataclass(frozen=True)
class Series:
    """Points of one curve, in the order in which they are joined.

    Attributes:
        name: in the legend; empty for none.
        x, y: as many of each; where one is None or not finite, the curve has a gap.
        style: "line", "faint", "dashed", or "points", which are not joined.
        colour: place of the colour, from 0; None takes that of the series among all.
    """

    name: str
    x: Sequence[float | None]
    y: Sequence[float | None]
    style: str = "line"
    colour: int | None = None


def line_plot(
    series: Sequence[Series],
    *,
    title: str,
    x_label: str = "",
    y_label: str = "",
    log_x: bool = False,
    log_y: bool = False,
    x_limits: tuple[float, float] | None = None,
    y_limits: tuple[float, float] | None = None,
    with_zero: bool = False,
    description: str = "",
) -> Html:
    """Curves in one plot.

    Args:
        series: what is drawn, the first one at the bottom.
        title: what the plot shows, for those who cannot see it; it is not written in the plot.
        x_label, y_label: names of the axes, with the unit.
        log_x, log_y: logarithmic axes, which leave out what is not above 0.
        x_limits, y_limits: ends of the axes instead of those of the values.
        with_zero: the vertical axis begins at 0, or has it inside.
        description: a longer text of the same kind as ``title``.

    Returns:
        An SVG element.
    """
    classes = [_classes(one, place) for place, one in enumerate(series)]
    head, top = legend([one.name for one in series], classes)
    sizes = {"start": float(HEIGHT), "end": 0.0, "log": log_y, "limits": y_limits, "with_zero": with_zero}
    rough = make_axis((v for one in series for v in one.y), **sizes)  # type: ignore[arg-type]
    frame = frame_for([rough.text(t) for t in rough.ticks], top=top, named=bool(y_label))
    y_axis = Axis(rough.low, rough.high, frame.bottom, frame.top, rough.ticks, rough.log)
    x_axis = make_axis(
        (v for one in series for v in one.x),
        start=frame.left,
        end=frame.right,
        log=log_x,
        limits=x_limits,
        exact=True,
    )
    curves = [_curve(one, x_axis, y_axis, group) for one, group in zip(series, classes, strict=True)]
    axes = (vertical_axis(y_axis, frame, y_label), horizontal_axis(x_axis, frame, x_label))
    inside = curves if any(curves) else [nothing(frame)]
    return picture(head, *axes, *inside, title=title, description=description)


def precision_recall_plot(
    curves: Sequence[Series],
    *,
    title: str,
    x_label: str = "recall",
    y_label: str = "precision",
    description: str = "",
) -> Html:
    """Precision over recall, both from 0 to 1, with thin lines where F1 is .2, .4, .6 and .8.

    Args:
        curves: recall as ``x``, precision as ``y``; points of the style "points" mark a threshold.
        title, x_label, y_label, description: as in ``line_plot``.
    """
    one = (0.0, 1.0)
    return line_plot(
        [*map(_f1_line, F1_LINES), *(_with_colour(curve, place) for place, curve in enumerate(curves))],
        title=title,
        x_label=x_label,
        y_label=y_label,
        x_limits=one,
        y_limits=one,
        description=description,
    )


def thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Of points that lie in one column, the first, the lowest, the highest and the last, in their order."""
    kept: list[tuple[float, float]] = []
    columns: dict[int, list[int]] = {}
    for place, (x, _) in enumerate(points):
        columns.setdefault(round(x), []).append(place)
    for places in columns.values():
        by_height = sorted(places, key=lambda place: points[place][1])
        kept += [points[p] for p in sorted({places[0], by_height[0], by_height[-1], places[-1]})]
    return kept


def _f1_line(f1: float) -> Series:
    """All pairs of recall and precision with this F1."""
    lowest = f1 / (2 - f1)  # recall at a precision of 1
    recalls = [lowest ** (1 - k / 24) for k in range(25)]
    return Series("", recalls, [f1 * r / (2 * r - f1) for r in recalls], "guide")


def _with_colour(series: Series, place: int) -> Series:
    colour = place if series.colour is None else series.colour
    return Series(series.name, series.x, series.y, series.style, colour)


def _classes(series: Series, place: int) -> str:
    number = place if series.colour is None else series.colour
    again = " again" if number >= COLOURS and series.style == "line" else ""
    return f"{colour_class(number)} {series.style}{again}"


def _curve(series: Series, x_axis: Axis, y_axis: Axis, group: str) -> Html:
    parts = _parts(series, x_axis, y_axis)
    if series.style == "points":
        dots = (_dot(x, y) for part in parts for x, y in part)
        return element("g", *dots, class_=group) if parts else Html("")
    joined = [thinned(part) for part in parts if len(part) > 1]
    path = "".join("M" + "L".join(f"{pixels(x)} {pixels(y)}" for x, y in part) for part in joined)
    alone = [_dot(*part[0]) for part in parts if len(part) == 1]
    line = element("path", class_="line", d=path) if path else ""
    return element("g", line, *alone, class_=group) if parts else Html("")


def _dot(x: float, y: float) -> Html:
    return element("circle", cx=x, cy=y, r=3.0)


def _parts(series: Series, x_axis: Axis, y_axis: Axis) -> list[list[tuple[float, float]]]:
    """Points in pixels, in pieces without a gap."""
    parts: list[list[tuple[float, float]]] = [[]]
    for x, y in zip(series.x, series.y, strict=True):
        if x_axis.shows(x) and y_axis.shows(y):
            parts[-1].append((x_axis.at(x), y_axis.at(y)))  # type: ignore[arg-type]
        elif parts[-1]:
            parts.append([])
    return [part for part in parts if part]
