# SPDX-License-Identifier: Apache-2.0
"""A plot as a file of its own, with the colours that a page would give it."""

from __future__ import annotations

from detectron_libra.report.markup import Html, element
from detectron_libra.report.style import COLOURS, PLOT

#: A page has a ground, and a picture lies on one that it does not know.
GROUND = "svg { background: var(--ground); font-family: system-ui, sans-serif; }\n"


def standalone(plot: Html) -> str:
    """The text of an SVG file.

    Args:
        plot: an SVG element of ``report.svg``.
    """
    begin, end, rest = plot.partition(">")
    return Html(f"{begin}{end}{element('style', Html(COLOURS + GROUND + PLOT))}{rest}\n")
