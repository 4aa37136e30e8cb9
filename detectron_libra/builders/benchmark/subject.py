# SPDX-License-Identifier: Apache-2.0
"""What a worker is given to run, whoever's it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from detectron_libra.builders.benchmark.ranges import Place

#: Of all contenders: so small that the weights stay what they are, and every step has the same work.
LR = 1e-8


@dataclass(frozen=True)
class Subject:
    """A detector with everything around it.

    Attributes:
        step: one training step, or the detections of one batch; asks nothing of the data but what it has in memory.
        places: functions of its parts.
        counts: numbers that tell whether two do the same work, such as candidates per image; runs the model.
        settings: what was done to the process and the model.
        images: in a step.
    """

    step: Callable[[], object]
    places: Sequence[Place]
    counts: Callable[[], dict[str, float]]
    settings: str
    images: int
