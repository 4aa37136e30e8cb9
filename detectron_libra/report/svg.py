# SPDX-License-Identifier: Apache-2.0
"""Plots as inline SVG: no script, no fonts or files from elsewhere; their colours are those of the page they are on."""

from detectron_libra.report.bars import bar_plot, heat_map, histogram
from detectron_libra.report.lines import Series, line_plot, precision_recall_plot

__all__ = ["Series", "bar_plot", "heat_map", "histogram", "line_plot", "precision_recall_plot"]
