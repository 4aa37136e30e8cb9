# SPDX-License-Identifier: Apache-2.0
"""The scale of a plot: where a value lies in pixels, and which values get a tick."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from detectron_libra.report.texts import is_number, number

#: Values beyond it, and below its inverse, are drawn at the edge, so that differences and quotients stay finite.
LARGEST = 1e300
#: Smallest span that is more than rounding, relative to the values.
RESOLUTION = 1e-9
#: Decades of a logarithmic axis below its largest value; a loss of exactly 1e-30 leaves the rest readable.
DECADES = 12


@dataclass(frozen=True)
class Axis:
    """A scale.

    Attributes:
        low, high: values at the two ends, ``low < high``; both above 0 where ``log``.
        start, end: pixels of the two ends, in either order.
        ticks: values that get a line and a text.
        log: logarithmic.
    """

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]
    log: bool = False

    def at(self, value: float) -> float:
        """Pixels of a value; one outside of the ends lies on the nearer one."""
        value = min(max(float(value), self.low), self.high)
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + (self.end - self.start) * share

    def shows(self, value: object) -> bool:
        """Whether a value has a place: finite, and above 0 on a logarithmic axis."""
        return is_number(value) and not (self.log and value <= 0)

    def text(self, tick: float) -> str:
        """A tick, with as many decimals as its neighbours need."""
        if self.log or len(self.ticks) < 2:
            return number(tick)
        step = self.ticks[1] - self.ticks[0]
        largest = max(map(abs, self.ticks))
        digits = math.floor(math.log10(largest)) - math.floor(math.log10(step)) + 1 if largest else 1
        return number(0.0 if abs(tick) < step / 2 else tick, max(1, digits))


def make_axis(
    values: Iterable[object],
    *,
    start: float,
    end: float,
    log: bool = False,
    limits: tuple[float, float] | None = None,
    with_zero: bool = False,
    exact: bool = False,
    count: int = 5,
) -> Axis:
    """An axis that shows the values.

    Args:
        values: numbers; what has no place on the axis is passed over.
        start, end: pixels of the two ends.
        log: logarithmic, where any value is above 0.
        limits: the two ends, instead of those of the values.
        with_zero: 0 is one of the values.
        exact: ends at the values; otherwise at ticks.
        count: about how many ticks.
    """
    known = [min(max(float(v), -LARGEST), LARGEST) for v in values if is_number(v)]
    if log and (above := [v for v in known if v > 1 / LARGEST]):
        return _log_axis(max(min(above), max(above) * 10.0**-DECADES), max(above), start, end, limits)
    known += [0.0] if with_zero or not known else []
    low, high = limits or _apart(min(known), max(known))
    step = _step((high - low) / count)
    if not (limits or exact):
        low, high = math.floor(low / step) * step, math.ceil(high / step) * step
    first, last = math.ceil(low / step - RESOLUTION), math.floor(high / step + RESOLUTION)
    return Axis(low, high, start, end, tuple(k * step for k in range(first, last + 1)))


def _log_axis(low: float, high: float, start: float, end: float, limits: tuple[float, float] | None) -> Axis:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    last += first == last
    low, high = limits or (10.0**first, 10.0**last)
    marks = (1, 2, 5) if last - first <= 2 else (1,)
    every = math.ceil((last - first) / 6)
    ticks = (mark * 10.0**k for k in range(first, last + 1, every) for mark in marks)
    return Axis(low, high, start, end, tuple(t for t in ticks if low <= t <= high), log=True)


def _apart(low: float, high: float) -> tuple[float, float]:
    """The two ends of an axis; around a single value there is room."""
    size = max(abs(low), abs(high))
    if high - low > RESOLUTION * size and high - low > 1 / LARGEST:
        return low, high
    room = size / 2 if size > 1 / LARGEST else 1.0
    return low - (room if low < 0 else 0.0), high + (room if high >= 0 else 0.0)


def _step(least: float) -> float:
    """1, 2 or 5 times a power of ten: the smallest that is not below ``least``."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= least * (1 - RESOLUTION))
