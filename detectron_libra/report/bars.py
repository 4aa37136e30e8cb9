# SPDX-License-Identifier: Apache-2.0
"""Plots of counts and of tables: bars beside names, histograms, heat maps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from detectron_libra.report.axes import Axis, make_axis
from detectron_libra.report.frame import (
    BELOW,
    HEIGHT,
    LETTER,
    LINE,
    RIGHT,
    ROW_NAME,
    WIDTH,
    Frame,
    colour_class,
    frame_for,
    horizontal_axis,
    legend,
    nothing,
    picture,
    text,
    vertical_axis,
)
from detectron_libra.report.markup import Html, element, pixels
from detectron_libra.report.texts import DASH, is_number, number, shorten

#: Height of a bar and of a row of a heat map, in units of a plot.
BAR, CELL = 13, 24
#: Opacity of a heat map's lowest and highest value; from the third on its text is that of a filled cell.
PALE, FULL, FILLED = 0.06, 0.95, 0.5


def bar_plot(
    labels: Sequence[str],
    groups: Mapping[str, Sequence[float | None]],
    *,
    title: str,
    x_label: str = "",
    errors: Mapping[str, Sequence[float | None]] | None = None,
    limits: tuple[float, float] | None = None,
    form: Callable[[float], str] = number,
    description: str = "",
) -> Html:
    """Bars that lie, a row per label and in it a bar per group, with the value at the end.

    Args:
        labels: names of the rows.
        groups: name of a group -> a value per label; None is a dash.
        title: what the plot shows, for those who cannot see it; it is not written in the plot.
        x_label: name of the axis, with the unit.
        errors: of some groups, half the length of a thin line around the end of the bar.
        limits: ends of the axis; by default 0 and the values are inside.
        form: value -> its text.
        description: a longer text of the same kind as ``title``.

    Returns:
        An SVG element whose height grows with the number of bars.
    """
    head, top = legend(list(groups), [f"{colour_class(k)} bar" for k in range(len(groups))])
    row = BAR * max(1, len(groups)) + 8
    left = 10 + LETTER * max((len(shorten(label, ROW_NAME)) for label in labels), default=0)
    frame = Frame(left, top + 6, WIDTH - RIGHT - 40, top + 6 + row * max(1, len(labels)))
    ends = [_around(v, e) for name in groups for v, e in _paired(groups[name], (errors or {}).get(name))]
    axis = make_axis(
        (v for pair in ends for v in pair), start=frame.left, end=frame.right, limits=limits, with_zero=True
    )
    parts = [
        text(left - 6, frame.top + row * (k + 0.5) + 4, shorten(label, ROW_NAME), anchor="end")
        for k, label in enumerate(labels)
    ]
    for place, (name, values) in enumerate(groups.items()):
        pairs = _paired(values, (errors or {}).get(name))
        for k, (value, error) in enumerate(pairs):
            y = frame.top + row * k + 4 + BAR * place
            hint = f"{labels[k]} {name}".strip()
            parts.append(_bar(axis, y, value, error, form, hint, colour_class(place)))
    inside = parts if labels else [nothing(frame)]
    below = horizontal_axis(axis, frame, x_label)
    return picture(head, below, *inside, title=title, description=description, height=frame.bottom + BELOW)


def histogram(
    edges: Sequence[float],
    groups: Mapping[str, Sequence[float | None]],
    *,
    title: str,
    x_label: str = "",
    y_label: str = "",
    log_x: bool = False,
    log_y: bool = False,
    description: str = "",
) -> Html:
    """Heights over bins, one half-transparent outline per group.

    Args:
        edges: ends of the bins, ascending; above 0 where ``log_x``.
        groups: name of a group -> a count or a share per bin, one fewer than edges.
        title, x_label, y_label, description: as in ``bar_plot``.
        log_x, log_y: logarithmic axes; on a vertical one an empty bin has no height.

    Returns:
        An SVG element.
    """
    head, top = legend(list(groups), [f"{colour_class(k)} line" for k in range(len(groups))])
    heights = [v for values in groups.values() for v in values]
    rough = make_axis(heights, start=float(HEIGHT), end=0.0, log=log_y, with_zero=True)
    frame = frame_for([rough.text(t) for t in rough.ticks], top=top, named=bool(y_label))
    y_axis = Axis(rough.low, rough.high, frame.bottom, frame.top, rough.ticks, rough.log)
    x_axis = make_axis(edges, start=frame.left, end=frame.right, log=log_x, exact=True)
    outlines = [
        element("path", class_=f"{colour_class(k)} area", d=_outline(edges, values, x_axis, y_axis))
        for k, values in enumerate(groups.values())
    ]
    inside = outlines if any(map(is_number, heights)) else [nothing(frame)]
    axes = (vertical_axis(y_axis, frame, y_label), horizontal_axis(x_axis, frame, x_label))
    return picture(head, *axes, *inside, title=title, description=description)


def heat_map(
    values: Sequence[Sequence[float | None]],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    title: str,
    x_label: str = "",
    y_label: str = "",
    largest: float | None = None,
    form: Callable[[float], str] = number,
    description: str = "",
) -> Html:
    """A table of numbers as cells, the fuller the larger; negative ones in another colour.

    Args:
        values: a list per row; None is a dash.
        rows, columns: their names.
        title, description, form: as in ``bar_plot``.
        x_label, y_label: names of the columns and of the rows.
        largest: size of a value that fills a cell; by default that of the largest one.

    Returns:
        An SVG element whose height grows with the number of rows.
    """
    left = 10 + LETTER * max((len(shorten(name, ROW_NAME)) for name in (*rows, y_label)), default=0)
    top = 6 + LINE * (2 if x_label else 1)
    width = (WIDTH - left - 2) / max(1, len(columns))
    sizes = [abs(float(v)) for line in values for v in line if is_number(v)]
    scale = largest or max(sizes, default=0.0) or 1.0
    parts = [text((left + WIDTH) / 2, 12, x_label, anchor="middle", group="label")] if x_label else []
    parts += [text(left - 6, top - 6, y_label, anchor="end", group="label")] if y_label else []
    letters = max(1, int(width / LETTER))
    for k, name in enumerate(columns):
        parts.append(text(left + width * (k + 0.5), top - 6, shorten(name, letters), anchor="middle"))
    for k, (name, line) in enumerate(zip(rows, values, strict=True)):
        y = top + CELL * k
        parts.append(text(left - 6, y + CELL / 2 + 4, shorten(name, ROW_NAME), anchor="end"))
        for c, value in enumerate(line):
            parts.append(_cell(left + width * c, y, width, value, scale, form, f"{name}, {columns[c]}"))
    return picture(*parts, title=title, description=description, height=top + CELL * max(1, len(rows)) + 4)


def _paired(
    values: Sequence[float | None], errors: Sequence[float | None] | None
) -> list[tuple[float | None, float | None]]:
    return list(zip(values, [None] * len(values) if errors is None else errors, strict=True))


def _around(value: float | None, error: float | None) -> tuple[float | None, float | None]:
    """The ends of the line around the end of a bar."""
    if not is_number(value) or not is_number(error):
        return value, value
    return value - error, value + error


def _bar(
    axis: Axis,
    y: float,
    value: float | None,
    error: float | None,
    form: Callable[[float], str],
    hint: str,
    colour: str,
) -> Html:
    if not is_number(value):
        return text(axis.at(0) + 4, y + BAR - 3, DASH)
    begin, end = sorted((axis.at(0), axis.at(value)))
    low, high = (axis.at(v) for v in _around(value, error))  # type: ignore[arg-type]
    bar = element("rect", x=begin, y=float(y), width=max(end - begin, 1.0), height=BAR - 2.0)
    line = element("path", class_="error", d=f"M{low:.2f} {y + BAR / 2 - 1:.2f}H{high:.2f}") if error else ""
    told = text(max(end, high) + 4, y + BAR - 3, form(value), group="small")
    return element("g", element("title", f"{hint}: {form(value)}"), bar, line, told, class_=f"{colour} bar")


def _outline(edges: Sequence[float], values: Sequence[float | None], x_axis: Axis, y_axis: Axis) -> str:
    ground = pixels(y_axis.at(y_axis.low if y_axis.log else 0.0))
    path = f"M{pixels(x_axis.at(edges[0]))} {ground}" if len(edges) else ""
    for right, value in zip(edges[1:], values, strict=True):
        path += f"V{pixels(y_axis.at(value)) if y_axis.shows(value) else ground}H{pixels(x_axis.at(right))}"  # type: ignore[arg-type]
    return path + f"V{ground}Z" if path else ""


def _cell(
    x: float,
    y: float,
    width: float,
    value: float | None,
    scale: float,
    form: Callable[[float], str],
    hint: str,
) -> Html:
    share = min(1.0, abs(float(value)) / scale) if is_number(value) else 0.0
    told = form(value) if is_number(value) else DASH
    kind = "below" if is_number(value) and value < 0 else "above"
    ground = element(
        "rect",
        x=x + 1,
        y=y + 1.0,
        width=max(width - 2, 1.0),
        height=CELL - 2.0,
        fill_opacity=PALE + (FULL - PALE) * share,
    )
    fits = len(told) * LETTER <= width
    shown = text(
        x + width / 2, y + CELL / 2 + 4, told, anchor="middle", group="on" if share > FILLED else None
    )
    return element(
        "g", element("title", f"{hint}: {told}"), ground, shown if fits else "", class_=f"heat {kind}"
    )
