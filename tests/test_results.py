# SPDX-License-Identifier: Apache-2.0
"""docs/results: a table has the numbers of the JSON that is linked under it, and these follow from its runs."""

import json
import re
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest

from detectron_libra.analysis.ablation import Summary, flat
from detectron_libra.analysis.ablation_table import cells
from detectron_libra.analysis.bootstrap import Difference

FOLDER = Path(__file__).resolve().parents[1] / "docs/results"
JSONS = sorted(FOLDER.glob("*.json"))
PAGES = [page for page in sorted(FOLDER.glob("*.md")) if page.name != "README.md"]


def read(file):
    return json.loads(file.read_text())


def differences(summary):
    """By metric; the baseline has none."""
    found = {what: flat(summary[what]) for what in ("delta", "ci95", "ci95_seeds")}
    return {
        name: None
        if delta is None
        else Difference(
            delta, *(found[what][name] and tuple(found[what][name]) for what in ("ci95", "ci95_seeds"))
        )
        for name, delta in found["delta"].items()
    }


def summaries(content):
    return [
        Summary(tuple(s["parts"]), tuple(s["seeds"]), flat(s["mean"]), flat(s["std"]), differences(s))
        for s in content["summary"]
    ]


def tables(page):
    """Rows of cells of every table, and the JSON that is linked next."""
    text = page.read_text()
    for is_table, lines in groupby(text.splitlines(keepends=True), key=lambda line: line.startswith("|")):
        lines = list(lines)
        if is_table:
            rest = text[text.index("".join(lines)) :]
            rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines]
            yield rows, FOLDER / re.search(r"\]\((\w+\.json)\)", rest)[1]


@pytest.mark.parametrize("file", JSONS, ids=lambda file: file.stem)
def test_means_deviations_and_differences_follow_from_the_runs(file):
    content = read(file)
    values = {
        (tuple(run["parts"]), run["seed"]): flat(run["metrics"]) | {"minutes": run["minutes"]}
        for run in content["runs"]
    }
    assert len(values) == len(content["runs"]) == sum(len(s["seeds"]) for s in content["summary"])
    for summary in content["summary"]:
        parts, seeds = tuple(summary["parts"]), summary["seeds"]
        mean, std, delta = (flat(summary[what]) for what in ("mean", "std", "delta"))
        for name, known in mean.items():
            own = [values[parts, seed][name] for seed in seeds]
            if known is None:
                assert None in own
                continue
            assert known == pytest.approx(np.mean(own)) and std[name] == pytest.approx(np.std(own, ddof=1))
            if parts:
                base = [values[(), seed][name] for seed in seeds]
                assert delta[name] == pytest.approx(np.mean(own) - np.mean(base))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_table_has_the_numbers_of_its_json(page):
    found = list(tables(page))
    assert found
    for (head, _, *rows), file in found:
        wanted = cells(summaries(read(file)))
        assert len(head) == len(wanted[0])
        pairs = [list(pair) for pair in zip(wanted, wanted[1:], strict=False)]
        for before, row in zip([head, *rows], rows, strict=False):
            if row[0] == "difference":
                assert [before, row] in pairs
            else:
                assert row in wanted


def test_every_json_is_on_a_page():
    assert {file for page in PAGES for _, file in tables(page)} == set(JSONS)
