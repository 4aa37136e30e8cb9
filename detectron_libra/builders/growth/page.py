# SPDX-License-Identifier: Apache-2.0
"""The result for people: a table and a plot per axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from detectron_libra.benchmarks.table import seconds
from detectron_libra.builders.growth.curve import OBJECTS, Curve
from detectron_libra.builders.growth.fit import LINEAR
from detectron_libra.report.lines import Series, line_plot
from detectron_libra.report.picture import standalone

#: What each axis is about.
TITLES = {
    "image": "Image size",
    "batch": "Images of a batch",
    "boxes": "Ground-truth boxes per image",
    "classes": "Classes",
    "data": "Annotations of the data set",
}
DASH = "–"


def markdown(content: Mapping[str, Any], curves: Mapping[str, Sequence[Curve]], pictures: str) -> str:
    """The page.

    Args:
        content: what ``run.as_json`` gives; its ``env`` and ``unit`` are used.
        curves: by axis, those of the content.
        pictures: folder of the plots, from where the page lies.
    """
    parts = [summary(curves)]
    for axis, own in curves.items():
        env = content[axis]["env"]
        head = f"## {TITLES[axis]}\n\n![Time over {content[axis]['unit']}]({pictures}/{axis}.svg)"
        where = (
            f"{env['cpu']}, 1 thread of {env['cores']} cores, load {env['load_average']}, torch {env['torch']}, commit "
            f"{env['commit']}, {env['date']}."
        )
        parts += [head, table(own, content[axis]["unit"]), where]
    return "\n\n".join(parts) + "\n"


def summary(curves: Mapping[str, Sequence[Curve]]) -> str:
    """One sentence."""
    every = [(axis, curve) for axis, own in curves.items() for curve in own]
    over = [f"{curve.name} ({axis})" for axis, curve in every if not (curve.linear or curve.exempt)]
    known = [f"{curve.name} ({curve.exempt})" for _, curve in every if curve.exempt]
    counted = f"Of {len(every)} curves, {len(every) - len(known)} must be linear"
    told = f"faster than linearly grow: {'; '.join(over)}" if over else "and all of them are"
    rest = f" Known to grow faster: {'; '.join(known)}." if known else ""
    return f"{counted}, {told} (exponents up to {LINEAR:g}).{rest}"


def table(curves: Sequence[Curve], unit: str) -> str:
    """A row per curve: time and memory at each size, and both exponents."""
    sizes = [point.size for point in curves[0].points]
    heads = [unit, *(f"{size:,}" for size in sizes), "time ~ size^", "memory ~ size^"]
    lines = [heads, ["---"] * len(heads), *(_cells(curve) for curve in curves)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def plot(curves: Sequence[Curve], unit: str) -> str:
    """Seconds over size as a file of SVG, both axes logarithmic, with a line of slope 1 to compare with."""
    series = [
        Series(curve.name, [p.size for p in curve.points], [p.seconds for p in curve.points])
        for curve in curves
    ]
    sizes = [p.size for p in curves[0].points]
    least = min(curve.points[0].seconds for curve in curves)
    guide = Series("linear", sizes, [least * size / sizes[0] for size in sizes], "guide")
    title = f"Processor time over {unit}"
    return standalone(
        line_plot([guide, *series], title=title, x_label=unit, y_label="seconds", log_x=True, log_y=True)
    )


def _cells(curve: Curve) -> list[str]:
    known = f" ({curve.exempt})" if curve.exempt else ""
    points = [f"{seconds(p.seconds)}, {_bytes(p.extra_bytes)}" for p in curve.points]
    kind = " \\*" if curve.memory == OBJECTS else ""
    return [
        f"{curve.name}{known}{kind}",
        *points,
        *map(_exponent, (curve.time_exponent, curve.memory_exponent)),
    ]


def _exponent(found: float | None) -> str:
    return DASH if found is None else f"{found:.2f}"


def _bytes(count: int | None) -> str:
    if count is None:
        return DASH
    for factor, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count} B"
