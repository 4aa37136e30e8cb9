# SPDX-License-Identifier: Apache-2.0
"""The measurements as a page: tables, plots, and what follows from them at the end of each section."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from detectron_libra.analysis.advice import Advice
from detectron_libra.analysis.page_data import data_parts
from detectron_libra.analysis.page_model import feature_parts, objective_parts, sample_parts
from detectron_libra.report.markup import Html
from detectron_libra.report.page import Section, code, facts, heading, note, page, paragraph

#: Section of the JSON -> its title, and what it asks.
TITLES = {
    "data": ("Data", "What is there to learn from, and can the anchors reach it?"),
    "sample": ("Samples", "Which boxes does a step learn from, and how hard are they?"),
    "feature": ("Features", "Do the levels of the pyramid hold the same things, and are all of them taught?"),
    "objective": ("Objectives", "Which part of the loss pulls hardest, and whose boxes does it listen to?"),
}


def imbalance_page(
    sections: Mapping[str, Mapping[str, Any]],
    advice: Sequence[Advice],
    about: Mapping[str, str],
    warning: str = "",
) -> str:
    """The page as HTML.

    Args:
        sections: ``data``, ``sample``, ``feature``, ``objective``, as in imbalance.json.
        advice: of all sections.
        about: what was measured; warning: what has to be known first.
    """
    makers = {
        "data": data_parts,
        "sample": sample_parts,
        "feature": feature_parts,
        "objective": objective_parts,
    }
    bodies = [
        Section(title, [question, *makers[name](sections[name]), *_advice(advice, name)])
        for name, (title, question) in TITLES.items()
    ]
    intro = [facts(about), note(warning)] if warning else [facts(about)]
    return page("Imbalance of data, samples, features and objectives", bodies, intro=intro)


def _advice(advice: Sequence[Advice], section: str) -> list[Html]:
    parts = [heading("Advice")]
    for one in (a for a in advice if a.section == section):
        parts.append(paragraph(one.finding))
        if one.values:
            parts.append(code(one.yaml))
    return parts
