# SPDX-License-Identifier: Apache-2.0
"""The exponent with which a cost grows, once what it costs at any size is taken off."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

#: Exponents up to here count as linear: caches that no longer hold the work, and the logarithm of a sort, add to 1.
LINEAR = 1.15
#: Only sizes from the largest one divided by this on are looked at: what comes before says little about what follows.
DECADE = 10.0
#: Fewest points of a line.
FEWEST = 2


def exponent(sizes: Sequence[float], costs: Sequence[float], *, sums: bool = True) -> float | None:
    """The k of ``cost = fixed + c size**k``, or of ``max(fixed, c size**k)``, over the last decade of sizes.

    Of a sum the smallest size and its cost are taken off all others: what is left of ``a + b size`` is then ``b (size -
    smallest)``, whatever a and b are, a line of slope 1 between logarithms. Sizes at which the cost is less than twice
    that of the smallest one tell of noise or of what is fixed, and are not looked at.

    Args:
        sizes: ascending, above 0.
        costs: of each size, 0 or more.
        sums: times add up; the most memory at once is that of one of the things done one after the other.

    Returns:
        The slope between the logarithms, by least squares; None where the cost does not rise far enough above that of
        the smallest size to tell.
    """
    x, y = np.asarray(sizes, float), np.asarray(costs, float)
    known = (x >= x[-1] / DECADE * (1 - 1e-9)) & (x > x[0]) & (y >= 2 * y[0]) & (y > 0)
    if known.sum() < FEWEST:
        return None
    rest, grown = (x - x[0], y - y[0]) if sums else (x, y)
    slope, _ = np.polyfit(np.log(rest[known]), np.log(grown[known]), 1)
    return float(slope)


def is_linear(found: float | None) -> bool:
    """Whether an exponent is that of a cost that grows no faster than the work."""
    return found is None or found <= LINEAR
