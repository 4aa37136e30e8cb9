# SPDX-License-Identifier: Apache-2.0
"""The section of a run report about one test set: tables, precision-recall curves, best and worst images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from detectron_libra.report.markup import Html
from detectron_libra.report.page import Section, figure, figures, heading, note, picture, table
from detectron_libra.report.svg import Series, precision_recall_plot
from detectron_libra.report.texts import number, percent

BOX = ("AP", "AP50", "AP75", "APs", "APm", "APl")
RECALLS = ("AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
RATES = ("precision", "recall", "f1")
#: Classes in one plot, and plots of classes; the table has all of them.
CLASSES_IN_PLOT, PLOTS = 8, 3


@dataclass(frozen=True)
class Curve:
    """Precision over recall of one class, or of all; ``at`` is the point of the threshold, or None."""

    name: str
    positives: int
    recall: Sequence[float]
    precision: Sequence[float]
    at: tuple[float, float] | None


@dataclass(frozen=True)
class Picture:
    """An image of a set with its boxes drawn, and how they went at the threshold."""

    name: str
    jpeg: bytes
    size: tuple[int, int]
    right: int
    wrong: int
    missed: int
    f1: float


@dataclass(frozen=True)
class SetReport:
    """What is known about a test set.

    Attributes:
        name: of the set.
        results: of results.json; empty where nothing was measured.
        curves: all classes together first.
        best, worst: images, the best and the worst first.
        threshold: score at which images are ranked and drawn.
        notes: what is missing or has to be known, a sentence each.
    """

    name: str
    results: Mapping[str, Any] = field(default_factory=dict)
    curves: Sequence[Curve] = ()
    best: Sequence[Picture] = ()
    worst: Sequence[Picture] = ()
    threshold: float | None = None
    notes: Sequence[str] = ()


def set_section(test: SetReport) -> Section:
    """Everything that is known about a test set."""
    parts: list[object] = [note(text) for text in test.notes]
    parts += _box_table(test.results) + _proposal_table(test.results)
    parts += _class_table(test.results) + _curves(test) + _pictures(test)
    return Section(f"Test: {test.name}", parts)


def headline(results: Mapping[str, Any]) -> str:
    """The numbers of a set that one looks for first, in one line."""
    if "box_proposal" in results:
        return f"AR@1000 {percent(results['box_proposal'].get('AR@1000'))}"
    boxes, images = results["boxes_at_threshold"], results["concept"]
    return (
        f"AP {percent(results['box']['AP'])}, AP50 {percent(results['box']['AP50'])}; "
        f"boxes: precision {percent(boxes['precision'])}, recall {percent(boxes['recall'])}; "
        f"images: precision {percent(images['precision'])}, recall {percent(images['recall'])} (per cent)"
    )


def fits(results: Mapping[str, Any]) -> bool:
    """Whether the results have the layout that the section and the headline read; a file may be of any version."""
    try:
        set_section(SetReport("", results))
        headline(results)
    except (LookupError, TypeError, AttributeError):
        return False
    return True


def _box_table(results: Mapping[str, Any]) -> list[object]:
    if "box" not in results:
        return []
    voc = {"PASCAL VOC AP50": results["voc"]["AP50"]} if "voc" in results else {}
    values = {key: results["box"].get(key) for key in BOX} | voc
    head = ["", *values]
    tables: list[object] = [
        table(head, [["box", *map(percent, values.values())]], caption="COCO average precision, per cent")
    ]
    recalls = {key: results["box"][key] for key in RECALLS if key in results["box"]}
    if recalls:
        row = ["box", *map(percent, recalls.values())]
        tables.append(table(["", *recalls], [row], caption="COCO average recall, per cent"))
    return tables


def _proposal_table(results: Mapping[str, Any]) -> list[object]:
    if "box_proposal" not in results:
        return []
    rows = [[name, percent(value)] for name, value in results["box_proposal"].items()]
    sentence = "Proposals have no classes: there is no precision, no table by class and no image to rank."
    return [note(sentence), table(["", "recall"], rows, caption="Average recall of proposals, per cent")]


def _class_table(results: Mapping[str, Any]) -> list[object]:
    if not {"box", "concept", "boxes_at_threshold"} <= set(results):
        return []
    box, boxes, images = results["box"], results["boxes_at_threshold"], results["concept"]
    head = ["class", "objects", "AP", "precision", "recall", "F1", "best F1", "at score"]
    head += [f"image {name}" for name in ("precision", "recall", "F1")]
    objects = {name: values["positives"] for name, values in boxes["per_class"].items()}
    means = [percent(box["AP"]), *_rates(boxes["macro"]), "", "", *_rates(images["macro"])]
    rows = [
        _row("all", sum(objects.values()), box["AP"], boxes, images),
        ["mean of classes", "", *means],
    ]
    for name, ap in box["per_class"].items():
        rows.append(_row(name, objects[name], ap, boxes["per_class"][name], images["per_class"][name]))
    caption = (
        f"By class, per cent: AP of boxes; precision, recall and F1 of boxes at score {number(boxes['threshold'])} and "
        f"IoU {number(boxes['iou'])}; those of the statement that an image has the class"
    )
    return [heading("By class"), table(head, rows, caption=caption)]


def _row(
    name: str, objects: int, ap: float | None, boxes: Mapping[str, Any], images: Mapping[str, Any]
) -> list[object]:
    best = [percent(boxes["best_f1"]), number(boxes["best_threshold"], 2)]
    return [name, objects, percent(ap), *_rates(boxes), *best, *_rates(images)]


def _rates(values: Mapping[str, Any]) -> list[str]:
    return [percent(values[key]) for key in RATES]


def _curves(test: SetReport) -> list[object]:
    if not test.curves:
        return []
    whole, *classes = test.curves
    places = sorted(range(len(classes)), key=lambda k: -classes[k].positives)[: CLASSES_IN_PLOT * PLOTS]
    chosen = [classes[k] for k in sorted(places)]
    groups = [chosen[k : k + CLASSES_IN_PLOT] for k in range(0, len(chosen), CLASSES_IN_PLOT)]
    plots = [_curve_plot(test.name, [whole], whole.name)]
    for k, group in enumerate(groups, start=1):
        plots.append(
            _curve_plot(
                test.name, group, f"by class, {k} of {len(groups)}" if len(groups) > 1 else "by class"
            )
        )
    parts: list[object] = [heading("Precision over recall"), figures(*plots)]
    if len(chosen) < len(classes):
        parts.insert(1, f"The {len(chosen)} classes with most objects, of {len(classes)}.")
    return parts


def _curve_plot(name: str, curves: Sequence[Curve], title: str) -> Html:
    lines = [Series(c.name, c.recall, c.precision, colour=k) for k, c in enumerate(curves)]
    points = [Series("", [c.at[0]], [c.at[1]], "points", k) for k, c in enumerate(curves) if c.at]
    plot = precision_recall_plot([*lines, *points], title=f"{name}: precision over recall of boxes, {title}")
    told = "the dots are at the score threshold; thin lines have F1 of .2, .4, .6 and .8"
    return figure(plot, told, title=title.capitalize())


def _pictures(test: SetReport) -> list[object]:
    parts: list[object] = []
    for title, pictures in (("Best images", test.best), ("Worst images", test.worst)):
        if pictures:
            parts += [heading(title), figures(*map(_picture, pictures), small=True)]
    if parts:
        told = (
            f"Ranked by F1 of their boxes at score {number(test.threshold)}. Coloured frames are detections with their "
            "score, dashed white ones are true boxes; one that is missed is labelled."
        )
        parts.insert(0, told)
    return parts


def _picture(one: Picture) -> Html:
    counts = f"F1 {percent(one.f1)} %: {one.right} right, {one.wrong} wrong, {one.missed} missed"
    return figure(picture(one.jpeg, alt=f"{one.name}: {counts}", size=one.size), counts, title=one.name)
