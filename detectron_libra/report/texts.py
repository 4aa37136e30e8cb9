# SPDX-License-Identifier: Apache-2.0
"""Numbers as a table or an axis shows them; what is not there is a dash."""

from __future__ import annotations

import math
from numbers import Real
from typing import TypeGuard

DASH = "–"
#: From here on down, and from here on up, a number is written in another way.
TINY, THOUSANDS, MILLIONS = 1e-3, 1e4, 1e6


def percent(value: float | None, digits: int = 1) -> str:
    """A fraction in per cent, without the sign of it."""
    return f"{100 * value:.{digits}f}" if is_number(value) else DASH


def number(value: float | None, digits: int = 3) -> str:
    """With ``digits`` significant digits: 0.0123, 12.3, 12.3k, 1.23e-5."""
    if not is_number(value):
        return DASH
    size = abs(value)
    if size >= 1e9 or 0 < size < TINY:
        return scientific(value, digits)
    for unit, letter, least in ((1e6, "M", MILLIONS), (1e3, "k", THOUSANDS)):
        if size >= least:
            return f"{value / unit:.{digits}g}{letter}"
    return f"{value:.{max(digits, len(str(int(size))))}g}"


def scientific(value: float, digits: int) -> str:
    """1.5e-7: without the plus sign and leading zeros of the exponent."""
    mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
    if "." in mantissa:
        mantissa = mantissa.rstrip("0").rstrip(".")
    return f"{mantissa}e{int(exponent)}"


def is_number(value: object) -> TypeGuard[float]:
    """Finite, and no truth value; NumPy's scalars are numbers too."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer that no float can hold
        return False


def shorten(text: str, length: int) -> str:
    """``text``, cut with an ellipsis where it has more than ``length`` characters."""
    return text if len(text) <= length else text[: length - 1] + "…"
