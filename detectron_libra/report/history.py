# SPDX-License-Identifier: Apache-2.0
"""What metrics.jsonl tells: lines about steps and lines about evaluations, as columns of numbers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from detectron_libra.report.texts import is_number

#: Tasks whose numbers are drawn over time, with those that are.
TASKS = {"box": ("AP", "AP50", "AP75"), "box_proposal": ("AR@1000", "AR@100")}


@dataclass(frozen=True)
class History:
    """The lines of a run.

    Attributes:
        steps: a dict per report of the training, with ``iter``.
        evaluations: (iteration, results by data set), in their order.
        unreadable: lines that are no JSON objects with an iteration, such as one that was cut off.
    """

    steps: Sequence[Mapping[str, Any]]
    evaluations: Sequence[tuple[int, Mapping[str, Any]]]
    unreadable: int

    @property
    def iterations(self) -> list[int]:
        """Of the steps, counted from 0."""
        return [step["iter"] for step in self.steps]

    def column(self, name: str) -> list[Any]:
        """A value per step; None where a step does not have it."""
        return [step.get(name) for step in self.steps]

    def names(self, prefix: str = "") -> list[str]:
        """Names of all columns with a number, in the order in which they first appear."""
        found = dict.fromkeys(key for step in self.steps for key in step if key.startswith(prefix))
        return [name for name in found if any(map(is_number, self.column(name)))]

    def not_finite(self) -> int:
        """Steps with a loss that is not a number."""
        return sum(
            any(value is None for name, value in step.items() if "loss" in name) for step in self.steps
        )


def read_history(lines: Iterable[str]) -> History:
    """The lines of metrics.jsonl; those that cannot be read are counted."""
    steps: list[Mapping[str, Any]] = []
    evaluations: list[tuple[int, Mapping[str, Any]]] = []
    unreadable = 0
    for line in lines:
        try:
            values = json.loads(line)
            iteration = values["iter"]
        except (ValueError, KeyError, TypeError):
            unreadable += 1
            continue
        if not is_number(iteration):
            unreadable += 1
        elif isinstance(values.get("eval"), dict):
            evaluations.append((iteration, values["eval"]))
        elif (
            "skipped" not in values
        ):  # the note on a step that was left out; its numbers are in a line of their own
            steps.append(values)
    return History(steps, evaluations, unreadable)


def over_time(
    history: History, final: Mapping[str, Any], last: int | None
) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """Results of every data set over the iterations.

    Args:
        history: of the run.
        final: results by data set after the last iteration.
        last: that iteration; None leaves ``final`` out.

    Returns:
        Data set -> name of the number -> (iteration, value).
    """
    points = [*history.evaluations, *([(last, final)] if last is not None else [])]
    found: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for iteration, results in points:
        for name, tasks in results.items():
            for metric, value in _numbers(tasks):
                found.setdefault(name, {}).setdefault(metric, []).append((iteration, value))
    return found


def _numbers(tasks: Any) -> Iterator[tuple[str, float]]:
    """The numbers of a data set that are drawn."""
    for task, metrics in TASKS.items():
        values = tasks.get(task) if isinstance(tasks, dict) else None
        if isinstance(values, dict):
            yield from ((metric, values[metric]) for metric in metrics if is_number(values.get(metric)))
