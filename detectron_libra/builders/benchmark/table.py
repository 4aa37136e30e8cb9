# SPDX-License-Identifier: Apache-2.0
"""The result for people: a line per row, the ratios underneath."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from detectron_libra.benchmarks.table import seconds
from detectron_libra.builders.benchmark.ranges import SHARES
from detectron_libra.builders.benchmark.result import UNSTEADY

HEADS = ("impl", "mode", "precision", "images/s", "step", "quartiles", "peak MB", *SHARES)


def text(env: dict[str, Any], rows: Sequence[dict[str, Any]], pairs: Sequence[dict[str, Any]]) -> str:
    """Everything that is printed."""
    return "\n\n".join(
        filter(None, [_head(env), _grid(HEADS, map(_cells, rows)), _counts(rows), _pairs(pairs)])
    )


def _head(env: dict[str, Any]) -> str:
    lines = [
        f"{env['model']} {env['backbone']}, {env['classes']} classes, Libra parts: {env['libra_parts']}",
        f"{env.get('cuda_device', env['cpu'])}, torch {env['torch']}, commit {env['commit']}, load "
        f"{env['load_average']}; {env['operators']}; peer: {env['peer'] or 'none'}",
    ]
    return "\n".join([*lines, *(f"note: {note}" for note in env["notes"])])


def _cells(row: dict[str, Any]) -> list[str]:
    low, high = row["step_s_quartiles"]
    mark = " !" if row["spread"] > UNSTEADY else ""
    return [
        row["impl"] + (" (its loader)" if row["data"] == "loader" else ""),
        row["mode"],
        row["precision"],
        f"{row['images_per_s']:.3g}",
        seconds(row["step_s"]),
        f"{seconds(low)} to {seconds(high)}{mark}",
        f"{row['peak_bytes'] / 1e6:.0f}",
        *(f"{row['shares'][name]:.1%}" for name in SHARES),
    ]


def _counts(rows: Sequence[dict[str, Any]]) -> str:
    """What says whether two rows did the same work."""
    lines = []
    for row in rows:
        size = "x".join(map(str, row["padded_size"])) if row["padded_size"] else "as the data"
        told = ", ".join(f"{name} {value:.4g}" for name, value in row["counts"].items())
        lines.append(
            f"{row['impl']} {row['mode']} {row['precision']}: batch {row['batch']} of {size}, "
            f"{row['threads']} threads; {told}; {row['settings']}"
        )
    return "\n".join(lines)


def _pairs(pairs: Sequence[dict[str, Any]]) -> str:
    heads = ("mode", "ours", "over", "times as fast", "quartiles", "times less memory")
    cells = (
        [
            one["mode"],
            one["ours"],
            f"{one['peer']} {one['peer_precision']}" + (" (headline)" if one["headline"] else ""),
            f"{one['speed']:.2f}",
            "{:.2f} to {:.2f}".format(*one["speed_quartiles"]) + (" !" if one["spread"] > UNSTEADY else ""),
            f"{one['memory']:.2f}" if one["memory"] else "-",
        ]
        for one in pairs
    )
    return _grid(heads, cells) if pairs else ""


def _grid(heads: Sequence[str], cells: Any) -> str:
    lines = [list(heads), *cells]
    widths = [max(len(line[i]) for line in lines) for i in range(len(heads))]
    drawn = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in lines
    ]
    return "\n".join([drawn[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *drawn[1:]])
