# SPDX-License-Identifier: Apache-2.0
"""Numbers as a table shows them: five digits, shares, quantiles, histograms; what cannot be computed is None."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

#: Names of quantiles and the share of values below each.
QUANTILES = {"min": 0.0, "p5": 0.05, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p95": 0.95, "max": 1.0}


def number(value: Any) -> float | None:
    """``value`` with five significant digits; None where it is not finite."""
    value = float(value)
    return float(f"{value:.5g}") if math.isfinite(value) else None


def share(part: float, whole: float) -> float | None:
    """``part`` of ``whole``, a fraction; None of nothing."""
    return number(part / whole) if whole else None


def mean(values: np.ndarray) -> float | None:
    """The mean; None of no values."""
    return number(values.mean()) if len(values) else None


def quantiles(values: np.ndarray) -> dict[str, float | None]:
    """QUANTILES of values (M,); None each where there are none."""
    if not len(values):
        return dict.fromkeys(QUANTILES)
    found = np.quantile(values, list(QUANTILES.values()))
    return {name: number(value) for name, value in zip(QUANTILES, found, strict=True)}


def histogram(values: np.ndarray, edges: Sequence[float]) -> dict[str, list]:
    """How many values (M,) lie in each [edge, next edge), the ones outside in the first and the last.

    Returns:
        {"edges": L + 1 numbers, "counts": L numbers}.
    """
    inner = np.searchsorted(np.asarray(edges[1:-1]), values, side="right")
    counts = np.bincount(inner, minlength=len(edges) - 1)
    return {"edges": [number(e) for e in edges], "counts": counts.tolist()}
