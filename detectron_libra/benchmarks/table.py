# SPDX-License-Identifier: Apache-2.0
"""The result for people: a Markdown table."""

from __future__ import annotations

from collections.abc import Sequence

from detectron_libra.benchmarks.row import Row
from detectron_libra.benchmarks.run import UNSTEADY

HEADS = (
    "op",
    "case",
    "layout",
    "dtype",
    "pass",
    "ours",
    "eager",
    "compile",
    "peer",
    "floor",
    "GB/s",
    "of floor",
    "x eager",
    "x compile",
    "x peer",
    "extra MB (eager)",
    "spread",
)
COLD = "ours, cold"


def markdown(rows: Sequence[Row]) -> str:
    """One line a row, aligned; a column for cold caches where they were measured."""
    with_cold = any(row.ours_cold_s is not None for row in rows)
    heads = [*HEADS, COLD] if with_cold else [*HEADS]
    lines = [heads, *(_cells(row) + ([seconds(row.ours_cold_s)] if with_cold else []) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(heads))]
    text = [
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |"
        for line in lines
    ]
    return "\n".join([text[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *text[1:]])


def seconds(value: float | None) -> str:
    """With a unit that leaves three digits: 12.3 us."""
    if value is None:
        return "-"
    for factor, unit in ((1, "s"), (1e3, "ms")):
        if value * factor >= 1:
            return f"{value * factor:.3g} {unit}"
    return f"{value * 1e6:.3g} us"


def _cells(row: Row) -> list[str]:
    return [
        row.op,
        row.case,
        row.layout,
        row.dtype,
        row.pass_,
        seconds(row.ours_s),
        seconds(row.eager_s),
        seconds(row.compile_s),
        seconds(row.peer_s),
        seconds(row.floor_s),
        f"{row.bytes / row.ours_s / 1e9:.3g}",
        f"{row.floor_s / row.ours_s:.0%}",
        _times(row.eager_s, row.ours_s),
        _times(row.compile_s, row.ours_s),
        _times(row.peer_s, row.ours_s),
        f"{_megabytes(row.peak_extra_bytes)} ({_megabytes(row.eager_peak_extra_bytes)})",
        f"{row.spread:.0%}" + (" !" if row.spread > UNSTEADY else ""),
    ]


def _times(other: float | None, ours: float) -> str:
    return "-" if other is None else f"{other / ours:.3g}"


def _megabytes(size: int | None) -> str:
    return "-" if size is None else f"{size / 1e6:.3g}"
