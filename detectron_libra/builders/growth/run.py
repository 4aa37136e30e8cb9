# SPDX-License-Identifier: Apache-2.0
"""All that `tools/benchmark_growth.py` measures, axis by axis."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from detectron_libra.benchmarks.table import seconds
from detectron_libra.builders import session
from detectron_libra.builders.growth.boxes import box_axis
from detectron_libra.builders.growth.classes import class_axis
from detectron_libra.builders.growth.curve import Axis, Curve, Point, curve_of
from detectron_libra.builders.growth.data import data_axis
from detectron_libra.builders.growth.detectors import RETINANET, config_of
from detectron_libra.builders.growth.images import batch_axis, image_axis
from detectron_libra.builders.growth.measure import MEMORY_S, measure

log = logging.getLogger(__name__)

AXES: dict[str, Callable[[], Axis]] = {
    "image": image_axis,
    "batch": batch_axis,
    "boxes": box_axis,
    "classes": class_axis,
    "data": data_axis,
}
#: Sizes of a quick run, the smallest ones.
QUICK = 3


def measure_axes(
    names: Sequence[str], *, quick: bool = False, memory_s: float = MEMORY_S
) -> dict[str, list[Curve]]:
    """Curves of axes, by their names.

    Args:
        names: of AXES.
        quick: few small sizes, one run each.
        memory_s: see ``measure``.
    """
    session.start(config_of(RETINANET, 3))
    found = {}
    for name in names:
        axis = AXES[name]()
        if quick:
            axis = replace(axis, works=tuple(replace(w, sizes=w.sizes[:QUICK]) for w in axis.works))
        found[name] = measure(axis, quick=quick, memory_s=memory_s, tell=_tell(axis))
    return found


def faster_than_linear(curves: Mapping[str, Sequence[Curve]]) -> list[str]:
    """What grows faster than its size, and is not known to, a line each."""
    return [
        f"{axis}: {curve.name}: exponent {_told(curve.time_exponent)} of time, {_told(curve.memory_exponent)} of memory"
        for axis, own in curves.items()
        for curve in own
        if not (curve.linear or curve.exempt)
    ]


def as_json(curves: Mapping[str, Sequence[Curve]], env: Mapping[str, Any]) -> dict[str, Any]:
    """Axes with what each was measured on, so that they can be measured one at a time."""
    return {
        name: {"env": dict(env), "unit": AXES[name]().unit, "curves": [curve.as_json() for curve in own]}
        for name, own in curves.items()
    }


def from_json(content: Mapping[str, Any]) -> dict[str, list[Curve]]:
    """The curves that ``as_json`` wrote, in the order of AXES."""
    return {name: [curve_of(entry) for entry in content[name]["curves"]] for name in AXES if name in content}


def _tell(axis: Axis) -> Callable[[str, Point], None]:
    def tell(name: str, point: Point) -> None:
        log.info("%s: %s: %s %s: %s", axis.name, name, f"{point.size:,}", axis.unit, seconds(point.seconds))

    return tell


def _told(found: float | None) -> str:
    return "-" if found is None else f"{found:.2f}"
