# SPDX-License-Identifier: Apache-2.0
"""What is measured, and what came out, as data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from detectron_libra.builders.growth.fit import exponent, is_linear

#: Where working memory is counted: what torch's allocator gives out, or what Python's does (NumPy's arrays included).
TENSORS, OBJECTS = "tensors", "objects"


@dataclass(frozen=True)
class Work:
    """Something whose cost depends on a size.

    Attributes:
        name: one line, for tables and legends.
        prepare: size to the work of that size, made ready; what it does when called is measured.
        sizes: ascending.
        memory: TENSORS or OBJECTS.
        exempt: why it may grow faster than linearly, or "".
    """

    name: str
    prepare: Callable[[int], Callable[[], object]]
    sizes: tuple[int, ...]
    memory: str = TENSORS
    exempt: str = ""


@dataclass(frozen=True)
class Axis:
    """A size that grows, and everything that depends on it.

    Attributes:
        name: as the command line has it.
        unit: what is counted, in the plural.
        works: in the order of the table.
    """

    name: str
    unit: str
    works: tuple[Work, ...]


@dataclass(frozen=True)
class Point:
    """One size.

    Attributes:
        size: in units of the axis.
        seconds: of processor time, median over ``runs``.
        extra_bytes: most memory at once beyond what was held before; None where it cannot be told.
        runs: that were timed.
    """

    size: int
    seconds: float
    extra_bytes: int | None
    runs: int


@dataclass(frozen=True)
class Curve:
    """One work at all of its sizes; the other attributes are those of ``Work``."""

    name: str
    points: tuple[Point, ...]
    memory: str = TENSORS
    exempt: str = ""

    @property
    def time_exponent(self) -> float | None:
        """See ``fit.exponent``."""
        return exponent([p.size for p in self.points], [p.seconds for p in self.points])

    @property
    def memory_exponent(self) -> float | None:
        """See ``fit.exponent``; of the sizes whose memory is known."""
        known = [(p.size, p.extra_bytes) for p in self.points if p.extra_bytes is not None]
        return exponent(*zip(*known, strict=True), sums=False) if known else None

    @property
    def linear(self) -> bool:
        """Neither time nor memory grows faster than the size."""
        return is_linear(self.time_exponent) and is_linear(self.memory_exponent)

    def as_json(self) -> dict[str, Any]:
        """With what was fitted."""
        return {
            "name": self.name,
            "memory": self.memory,
            "exempt": self.exempt,
            "time_exponent": self.time_exponent,
            "memory_exponent": self.memory_exponent,
            "points": [vars(point) for point in self.points],
        }


def curve_of(entry: dict[str, Any]) -> Curve:
    """The inverse of ``Curve.as_json``."""
    points = tuple(Point(**point) for point in entry["points"])
    return Curve(entry["name"], points, entry["memory"], entry["exempt"])
