# SPDX-License-Identifier: Apache-2.0
"""How long COCO's twelve numbers take from boxes in memory, ours and pycocotools', and whether they are the same."""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import numpy as np

from detectron_libra.evaluation import FoundBoxes, TrueBoxes, evaluate_arrays, fast, pycoco
from detectron_libra.evaluation.coco import METRICS, RECALLS


@dataclass(frozen=True)
class Timing:
    """Seconds.

    Attributes:
        ours: of ``evaluate_arrays``, every run: from arrays to the numbers, the sample for pycocotools included.
        sample: of that sample alone, in the same rounds.
        loading, theirs: of pycocotools, every run: the boxes into its objects, and from there to the numbers.
        difference: largest one of the twelve numbers.
        numbers: those numbers, by name; None where one cannot be computed.
        program: what computed ours.
    """

    ours: list[float]
    sample: list[float]
    loading: list[float]
    theirs: list[float]
    difference: float
    numbers: dict[str, float | None]
    program: str

    @property
    def ratio(self) -> float:
        """How many times longer pycocotools takes, its loading left out."""
        return median(self.theirs) / median(self.ours)


def measure(truth: TrueBoxes, found: FoundBoxes, *, runs: int, reference_runs: int) -> Timing:
    """Times both, in turns: pycocotools between two rounds of ours.

    Args:
        truth, found: boxes.
        runs: of ours in a round.
        reference_runs: of pycocotools, 1 or more.
    """
    module = fast.installed()
    evaluate_arrays(truth, found)  # the first run loads what it needs
    times: dict[str, list[float]] = {name: [] for name in ("ours", "sample", "loading", "theirs")}
    ours: dict = {}
    for rest in range(reference_runs, -1, -1):
        for _ in range(runs):
            ours = _timed(times["ours"], lambda: evaluate_arrays(truth, found))
            if module is not None:
                _timed(times["sample"], lambda: _sample(truth, found))
        if rest:
            theirs = _reference(times, truth, found)
    numbers = {name: ours[name] for name in (*METRICS, *RECALLS)}
    values = np.array([-1.0 if value is None else value for value in numbers.values()])
    difference = float(np.abs(values - theirs).max())
    version = getattr(module, "__version__", "")
    return Timing(
        **times,
        difference=difference,
        numbers=numbers,
        program=f"hotcoco {version}" if module else "pycocotools",
    )


def _sample(truth: TrueBoxes, found: FoundBoxes) -> None:
    module = fast.installed()
    assert module is not None
    sample = fast.sample_of(truth, found, range(1), range(1))
    fast.agrees(lambda *boxes: fast.by_hotcoco(module, *boxes), *sample)


def _reference(times: dict[str, list[float]], truth: TrueBoxes, found: FoundBoxes) -> np.ndarray:
    """The twelve numbers of pycocotools."""
    images, classes = (
        np.unique(np.concatenate([getattr(boxes, name) for boxes in (truth, found)])).tolist()
        for name in ("images", "classes")
    )
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = _timed(times["loading"], lambda: pycoco.prepare(truth, found, images, classes))
        _timed(times["theirs"], lambda: pycoco.finish(evaluation))
    return np.asarray(evaluation.stats)


def _timed(times: list[float], work: Callable):
    begun = time.perf_counter()
    result = work()
    times.append(time.perf_counter() - begun)
    return result
