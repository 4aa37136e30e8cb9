# SPDX-License-Identifier: Apache-2.0
"""Runs of an ablation together: mean and deviation over the seeds, difference to the baseline with its intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

import numpy as np

from detectron_libra.analysis.bootstrap import Difference, compare
from detectron_libra.analysis.weighted import NAMES, PER_CLASS

MINUTES = "minutes"


def metrics_of(results: Mapping[str, Any]) -> dict[str, float | None]:
    """The metrics of an ablation, by the names of ``weighted.weighted_metrics``.

    Args:
        results: of one data set in results.json.
    """
    box, concept, at = results["box"], results["concept"], results["boxes_at_threshold"]
    values = {
        **{name: box[name] for name in NAMES if name in box},
        "concept_precision": concept["precision"],
        "concept_recall": concept["recall"],
        "concept_mAP": concept["mAP"],
        "box_precision": at["precision"],
        "box_recall": at["recall"],
    }
    return values | {f"{PER_CLASS}{name}": value for name, value in box["per_class"].items()}


def summarise(runs: Sequence[Run]) -> list[Summary]:
    """One summary per combination of parts, in the order in which they first appear.

    Args:
        runs: with the same metrics each; those without parts are the baseline.
    """
    baseline = {run.seed: run for run in runs if not run.parts}
    every = list(dict.fromkeys(run.parts for run in runs))
    return [_summary(parts, [run for run in runs if run.parts == parts], baseline) for parts in every]


def as_json(runs: Sequence[Run], summaries: Sequence[Summary], about: Mapping[str, Any]) -> dict:
    """``{"runs": …, "summary": …, "about": …}``; the AP of classes lies under ``per_class`` of each mapping."""
    return {
        "runs": [
            {
                "parts": list(run.parts),
                "seed": run.seed,
                "metrics": nested(run.metrics),
                "minutes": run.minutes,
            }
            for run in runs
        ],
        "summary": [
            {
                "parts": list(s.parts),
                "seeds": list(s.seeds),
                "mean": nested(s.mean),
                "std": nested(s.std),
                "delta": s.told(lambda d: d.delta),
                "ci95": s.told(lambda d: d.ci95),
                "ci95_seeds": s.told(lambda d: d.ci95_seeds),
                "mark": s.told(lambda d: d.mark),
            }
            for s in summaries
        ],
        "about": dict(about),
    }


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """``per_class/<name>`` under ``per_class``, the rest as it is."""
    tree: dict[str, Any] = {}
    for name, value in values.items():
        if name.startswith(PER_CLASS):
            tree.setdefault("per_class", {})[name.removeprefix(PER_CLASS)] = value
        else:
            tree[name] = value
    return tree


def flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """The opposite of ``nested``."""
    per_class = values.get("per_class", {})
    plain = {name: value for name, value in values.items() if name != "per_class"}
    return plain | {f"{PER_CLASS}{name}": value for name, value in per_class.items()}


def _summary(parts: tuple[str, ...], runs: Sequence[Run], baseline: Mapping[int, Run]) -> Summary:
    columns = {name: [run.value(name) for run in runs] for name in runs[0].names}
    return Summary(
        parts=parts,
        seeds=tuple(run.seed for run in runs),
        mean={name: _over_seeds(fmean, column, 1) for name, column in columns.items()},
        std={name: _over_seeds(stdev, column, 2) for name, column in columns.items()},
        differences={
            name: _difference(name, [(run, baseline[run.seed]) for run in runs if run.seed in baseline])
            if parts
            else None
            for name in columns
        },
    )


def _over_seeds(
    statistic: Callable[[Sequence[float]], float], column: Sequence[float | None], least: int
) -> float | None:
    known = [value for value in column if value is not None]
    return statistic(known) if len(known) == len(column) >= least else None


def _difference(name: str, pairs: Sequence[tuple[Run, Run]]) -> Difference | None:
    values = [(run.value(name), other.value(name)) for run, other in pairs]
    differences = [None if a is None or b is None else a - b for a, b in values]
    resampled = None
    if name != MINUTES:
        resampled = [run.resampled[name] - other.resampled[name] for run, other in pairs]
    return compare(differences, resampled)


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        parts: that it has; none in the baseline.
        seed: of the training.
        metrics: name -> fraction, None where it cannot be computed.
        minutes: of the training.
        resampled: name -> (R,) the same on each resample of the images.
    """

    parts: tuple[str, ...]
    seed: int
    metrics: Mapping[str, float | None]
    minutes: float
    resampled: Mapping[str, np.ndarray]

    @property
    def names(self) -> list[str]:
        """Of everything that is compared."""
        return [*self.metrics, MINUTES]

    def value(self, name: str) -> float | None:
        """Of a metric, or the minutes."""
        return self.minutes if name == MINUTES else self.metrics[name]


@dataclass(frozen=True)
class Summary:
    """The runs of one combination of parts.

    Attributes:
        parts: none in the baseline.
        seeds: of its runs.
        mean, std: by metric; None where a run has no value, and no deviation of a single one.
        differences: by metric; None in the baseline, and where there is nothing to compare.
    """

    parts: tuple[str, ...]
    seeds: tuple[int, ...]
    mean: Mapping[str, float | None]
    std: Mapping[str, float | None]
    differences: Mapping[str, Difference | None]

    def told(self, what: Callable[[Difference], Any]) -> dict[str, Any]:
        """Something of every difference, None where there is none."""
        return nested({name: None if d is None else what(d) for name, d in self.differences.items()})
