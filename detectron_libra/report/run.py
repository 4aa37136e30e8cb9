# SPDX-License-Identifier: Apache-2.0
"""The report of a training run as one page, from what is known about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from detectron_libra.report.history import History
from detectron_libra.report.markup import Html, element
from detectron_libra.report.page import Section, code, details, facts, heading, note, page, table
from detectron_libra.report.sets import SetReport, headline, set_section
from detectron_libra.report.texts import number
from detectron_libra.report.training import results_over_time, training_sections


@dataclass(frozen=True)
class RunContent:
    """What is known about a training run.

    Attributes:
        title: of the page.
        facts: about model and data, by name.
        max_iter: iterations of the whole run.
        eval_period: iterations between evaluations; 0: none before the end.
        finished: the final weights are there.
        history: of metrics.jsonl.
        tests: one per test set.
        changed: key, value in use, default, of every key that is no default.
        config_text: the whole configuration, YAML.
        sittings: how each process computed, in the words of the log.
        versions: of what wrote the report, by name.
        advice: sentences about what to change.
    """

    title: str
    facts: Mapping[str, object]
    max_iter: int
    eval_period: int
    finished: bool
    history: History
    tests: Sequence[SetReport]
    changed: Sequence[tuple[str, str, str]]
    config_text: str
    sittings: Sequence[str]
    versions: Mapping[str, object]
    advice: Sequence[str] = ()


def run_page(run: RunContent) -> str:
    """The whole page."""
    final = {test.name: test.results for test in run.tests if test.results}
    last = run.max_iter - 1 if run.finished else None
    end = max(1, run.max_iter - 1, *run.history.iterations)
    sections = [
        *training_sections(run.history, end),
        results_over_time(run.history, final, last, period=run.eval_period, end=end),
        *(map(set_section, run.tests) if run.tests else [_untested()]),
        _configuration(run),
        _versions(run),
    ]
    told = [*_state(run), *map(_advice, run.advice)]
    return page(run.title, sections, intro=[*told, facts(dict(run.facts) | _summary(run, final))])


def _state(run: RunContent) -> list[Html]:
    """Where the run is not complete, that it is not."""
    if run.finished:
        return []
    done = max(run.history.iterations, default=-1) + 1
    sentence = f"There are no final weights: metrics.jsonl ends after {done} of {run.max_iter} iterations."
    return [note(f"{sentence} The run was stopped, or is under way.")]


def _advice(sentence: str) -> Html:
    return note(sentence[:1].upper() + sentence[1:] + ".")


def _summary(run: RunContent, final: Mapping[str, Mapping]) -> dict[str, object]:
    """The numbers that one looks for first."""
    told: dict[str, object] = {
        "Iterations": f"{max(run.history.iterations, default=-1) + 1} of {run.max_iter}"
    }
    if run.history.steps:
        told["Last loss"] = number(run.history.steps[-1].get("loss"))
        told["Images per second"] = number(run.history.steps[-1].get("images_per_s"))
    for name, results in final.items():
        told[name] = headline(results)
    return told


def _untested() -> Section:
    return Section("Test", [note("TEST.DATASETS names no data set: nothing was tested.")])


def _configuration(run: RunContent) -> Section:
    rows = [(element("code", key), value, default) for key, value, default in run.changed]
    head = ["key", "value", "default"]
    changed = table(head, rows, caption="Keys that are not at their default", texts=3, long=True)
    whole = details("The whole configuration (config.yaml)", code(run.config_text))
    return Section("Configuration", [changed if rows else "Every key is at its default.", whole])


def _versions(run: RunContent) -> Section:
    parts: list[object] = []
    if run.sittings:
        parts = [heading("The training computed with"), *run.sittings]
    return Section("Versions", [*parts, heading("This report was written with"), facts(run.versions)])
