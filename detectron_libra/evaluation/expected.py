# SPDX-License-Identifier: Apache-2.0
"""Results held against those that the configuration expects."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import UsageError

log = logging.getLogger(__name__)

KEY = "EXPECTED_RESULTS"


def check_form(expected: Sequence[Any]) -> None:
    """Refuses an expectation that is not [set, task, metric, value or [mean, deviation]].

    Raises:
        UsageError: naming the entry.
    """
    for entry in expected:
        good = (
            isinstance(entry, (list, tuple))
            and len(entry) == 4
            and all(isinstance(word, str) for word in entry[:3])
            and (_is_number(entry[3]) or _is_mean_and_deviation(entry[3]))
        )
        if not good:
            raise UsageError(
                f"{KEY}: {entry!r}: want [set, task, metric, value] or [set, task, metric, [mean, deviation]]"
            )


def misses(
    results: Mapping[str, dict], expected: Sequence[Any], *, rtol: float, atol: float, sigma_tol: float
) -> list[str]:
    """The expectations that results do not meet, each as a line; every comparison is logged.

    A value v is met by a result within ``atol + rtol |v|`` of it, a mean m with a deviation s by one within
    ``sigma_tol s``, bounds included. (Detectron compares a value the other way round: it passes what is too far off.)

    Args:
        results: see :func:`~detectron_libra.evaluation.results.results_dict`.
        expected: ``[set, task, metric, value or [mean, deviation]]`` each.

    Raises:
        UsageError: results have no such set, task or metric.
    """
    lines = []
    for dataset, task, metric, value in expected:
        actual = _look_up(results, dataset, task, metric)
        deviates = isinstance(value, (list, tuple))
        middle = float(value[0] if deviates else value)
        tolerance = float(sigma_tol * value[1] if deviates else atol + rtol * abs(middle))
        met = actual is not None and abs(actual - middle) <= tolerance
        shown = "none" if actual is None else f"{actual:.4f}"
        line = f"{dataset} > {task} > {metric}: {shown}, expected {middle:.4f} +- {tolerance:.4f}"
        log.log(logging.INFO if met else logging.ERROR, "%s: %s", "PASS" if met else "FAIL", line)
        if not met:
            lines.append(line)
    return lines


def _look_up(results: Mapping[str, Any], *path: str) -> float | None:
    """The number at a path of names; None where it could not be computed."""
    node: Any = results
    for depth, name in enumerate(path):
        if not isinstance(node, Mapping) or name not in node:
            known = ", ".join(node) if isinstance(node, Mapping) else "none"
            where = " > ".join(path[: depth + 1])
            raise UsageError(f"{KEY}: {where}: there is no such result; there are {known}")
        node = node[name]
    if node is not None and not _is_number(node):
        raise UsageError(f"{KEY}: {' > '.join(path)}: that is no number")
    return node


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_mean_and_deviation(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 2 and all(map(_is_number, value))
