# SPDX-License-Identifier: Apache-2.0
"""The table of an ablation for people: a column per combination of parts, in Markdown and as an HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from detectron_libra.analysis.ablation import MINUTES, Summary
from detectron_libra.analysis.bootstrap import CONTAINS_ZERO, CONTAINS_ZERO_WITH_SEEDS, Difference
from detectron_libra.analysis.weighted import PER_CLASS
from detectron_libra.report.page import page, table

#: What stands behind a difference that may be chance.
MARKS = {CONTAINS_ZERO: " ≈ 0", CONTAINS_ZERO_WITH_SEEDS: " (≈ 0)", "": ""}
DASH = "–"


def markdown(title: str, summaries: Sequence[Summary], about: Mapping[str, Any]) -> str:
    """The table with what has to be known to read it.

    Args:
        title: the heading.
        summaries: the baseline first.
        about: see ``explanation``.
    """
    head, *rows = cells(summaries)
    lines = [head, ["---"] * len(head), *rows]
    text = "\n".join(f"| {' | '.join(_escaped(cell) for cell in line)} |" for line in lines)
    return "\n\n".join([f"# {title}", text, *explanation(summaries, about)]) + "\n"


def html(title: str, summaries: Sequence[Summary], about: Mapping[str, Any]) -> str:
    """The same as a page that needs no network."""
    head, *rows = cells(summaries)
    return page(title, [], intro=[table(head, rows), *explanation(summaries, about)])


def cells(summaries: Sequence[Summary]) -> list[list[str]]:
    """Head and rows: two for each metric, its mean and deviation, and its difference to the baseline."""
    columns = ["+".join(s.parts) or "baseline" for s in summaries]
    rows = [["", *columns], ["seeds", *(", ".join(map(str, s.seeds)) for s in summaries)]]
    compared = any(d for s in summaries for d in s.differences.values())
    for name in summaries[0].mean:
        rows.append([title_of(name), *(_mean(name, s) for s in summaries)])
        if compared:
            rows.append(["difference", *(_difference(name, s.differences[name]) for s in summaries)])
    return rows


def title_of(name: str) -> str:
    """Of a metric, as people read it."""
    if name.startswith(PER_CLASS):
        return f"AP {name.removeprefix(PER_CLASS)}"
    return name.replace("_", " ")


def explanation(summaries: Sequence[Summary], about: Mapping[str, Any]) -> list[str]:
    """Paragraphs under the table.

    Args:
        about: ``iterations``, ``images_per_step`` and ``scales_px`` (shorter sides) of the trainings; ``dataset`` and
            ``images`` of the test; ``threshold``, ``iou`` and ``resamples``.
    """
    sides = ", ".join(map(str, about["scales_px"]))
    texts = [
        f"Trained for {about['iterations']} iterations of {about['images_per_step']} images, shorter side {sides} "
        f"pixels. Mean ± standard deviation over the seeds, in per cent, on the {about['images']} images of "
        f"{about['dataset']}; minutes are those of the training steps. Precision and recall are those at score "
        f"{about['threshold']:g}: concept, whether an image has the class; box, right at IoU {about['iou']:g}.",
        "Difference: variant minus baseline, mean over the seeds that both have, with the 95 % interval of a paired "
        f"bootstrap over the images ({about['resamples']} resamples, the same for every run). Every resample is "
        "measured as COCO would measure it; only the order of equal scores is approximated.",
        f'"{MARKS[CONTAINS_ZERO].strip()}": the interval contains 0, so that the difference may be chance. '
        f'"{MARKS[CONTAINS_ZERO_WITH_SEEDS].strip()}": the interval, which is about the choice of images alone, does '
        "not, but it does once the chance in training counts too (Student's interval of the differences seed by seed, "
        "added in squares).",
    ]
    if any(len(s.seeds) < 2 for s in summaries):
        texts.append(
            "With one seed nothing is known about the chance in training: train more before concluding."
        )
    if summaries and summaries[0].parts:
        texts.append("No run of the baseline has finished, so there is nothing to compare with.")
    return texts


def _mean(name: str, summary: Summary) -> str:
    mean, std = summary.mean[name], summary.std[name]
    if mean is None:
        return DASH
    scale = _scale(name)
    return f"{scale * mean:.1f}" + ("" if std is None else f" ± {scale * std:.1f}")


def _difference(name: str, found: Difference | None) -> str:
    if found is None:
        return ""
    scale = _scale(name)
    text = f"{scale * found.delta:+.1f}"
    if found.ci95 is None:
        return text
    low, high = found.ci95
    return f"{text} [{scale * low:+.1f}, {scale * high:+.1f}]{MARKS[found.mark]}"


def _scale(name: str) -> float:
    return 1.0 if name == MINUTES else 100.0


def _escaped(text: str) -> str:
    return " ".join(text.replace("\\", "\\\\").replace("|", "\\|").split())
