# SPDX-License-Identifier: Apache-2.0
"""What every plot has: a picture that scales with its page, a legend, axes with ticks and texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from detectron_libra.report.axes import Axis
from detectron_libra.report.markup import Html, element
from detectron_libra.report.texts import shorten

#: Units of a plot; small, so that its texts can be read on a narrow screen too.
WIDTH, HEIGHT = 480, 300
#: Height of a line of text, and about the width of a letter, in units of a plot.
LINE, LETTER = 18, 7.4
#: Room at the right for half a tick's text, and below the axis for ticks and the name of the axis.
RIGHT, BELOW = 16, 38
#: Colours that page.py knows; a plot with more series takes them again.
COLOURS = 8
#: Characters of a name in a legend, and of one beside a row.
NAME, ROW_NAME = 32, 20


@dataclass(frozen=True)
class Frame:
    """The pixels that values are drawn in, from the upper left to the lower right corner."""

    left: float
    top: float
    right: float
    bottom: float


def picture(*parts: object, title: str, description: str = "", height: float = HEIGHT) -> Html:
    """An SVG picture as wide as its place, named for those who cannot see it."""
    return element(
        "svg",
        element("title", title),
        element("desc", description) if description else "",
        *parts,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {WIDTH} {height:g}",
        role="img",
        aria_label=title,
        class_="plot",
    )


def colour_class(place: int) -> str:
    """Class of the series at a place, from 0."""
    return f"c{place % COLOURS + 1}"


def legend(names: Sequence[str], classes: Sequence[str]) -> tuple[Html, float]:
    """Names with a mark in their colour, in as many lines as they need.

    Args:
        names: of the series; an empty one has no entry.
        classes: CSS classes of the marks.

    Returns:
        The group, and its height; nothing where there is a single name or none.
    """
    entries = [(shorten(name, NAME), group) for name, group in zip(names, classes, strict=True) if name]
    if len(entries) < 2:
        return Html(""), 0.0
    x, y, parts = 0.0, 12.0, []
    for name, group in entries:
        width = 24 + LETTER * len(name)
        if x and x + width > WIDTH:
            x, y = 0.0, y + LINE
        mark = element("path", class_="line", d=f"M{x + 2:g} {y - 4:g}h14")
        parts.append(element("g", mark, text(x + 20, y, name), class_=group))
        x += width + 8
    return element("g", *parts), y + 8


def text(x: float, y: float, content: object, *, anchor: str | None = None, group: str | None = None) -> Html:
    """Text with its base line at ``y``; ``anchor`` is middle or end, by default it begins at ``x``."""
    return element("text", content, x=float(x), y=float(y), text_anchor=anchor, class_=group)


def frame_for(y_texts: Sequence[str], *, top: float, named: bool) -> Frame:
    """The place for values beside the texts of the vertical axis, below ``top`` and the axis' name if it has one."""
    left = 10 + LETTER * max(map(len, y_texts), default=0)
    return Frame(left, top + 10 + (LINE if named else 0), WIDTH - RIGHT, HEIGHT - BELOW)


def horizontal_axis(axis: Axis, frame: Frame, label: str) -> Html:
    """Ticks with thin lines through the plot, their texts below, and the name of the axis under them."""
    ticks = [
        element("path", class_="grid", d=f"M{axis.at(t):.2f} {frame.top:.2f}V{frame.bottom:.2f}")
        + text(axis.at(t), frame.bottom + 15, axis.text(t), anchor="middle")
        for t in axis.ticks
    ]
    middle = (frame.left + frame.right) / 2
    name = text(middle, frame.bottom + 32, label, anchor="middle", group="label") if label else ""
    return element("g", *map(Html, ticks), name)


def vertical_axis(axis: Axis, frame: Frame, label: str) -> Html:
    """Ticks with thin lines through the plot, their texts at the left, and the name of the axis on top."""
    ticks = [
        element("path", class_="grid", d=f"M{frame.left:.2f} {axis.at(t):.2f}H{frame.right:.2f}")
        + text(frame.left - 6, axis.at(t) + 4, axis.text(t), anchor="end")
        for t in axis.ticks
    ]
    name = text(0, frame.top - 14, label, group="label") if label else ""
    return element("g", *map(Html, ticks), name)


def nothing(frame: Frame) -> Html:
    """Said in a plot without a single value."""
    x, y = (frame.left + frame.right) / 2, (frame.top + frame.bottom) / 2
    return text(x, y, "no values", anchor="middle", group="label")
