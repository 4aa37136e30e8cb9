# SPDX-License-Identifier: Apache-2.0
"""The summary that a person reads at the end of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .coco import METRICS, RECALLS

RATES = ("precision", "recall", "f1")
#: Longest class name that the table shows in full, in characters.
NAME_WIDTH = 24


def summary_table(results: Mapping[str, dict]) -> str:
    """A plain-text table per data set: AP, then precision, recall and F1 of images and of boxes, by class.

    Args:
        results: see :func:`~detectron_libra.evaluation.results.results_dict`.

    Returns:
        Lines without a final line break; values in per cent, "-" where one cannot be computed.
    """
    return "\n\n".join(_one(name, values) for name, values in results.items())


def _one(name: str, values: dict) -> str:
    box, concept, boxes = values["box"], values["concept"], values["boxes_at_threshold"]
    head, recalls = (
        "  ".join(f"{key} {_percent(box[key]).strip()}" for key in keys) for keys in (METRICS, RECALLS)
    )
    rows = [
        ("all", (box["AP"], *_rates(concept), *_rates(boxes))),
        ("mean of classes", (box["AP"], *_rates(concept["macro"]), *_rates(boxes["macro"]))),
        *(
            (
                key,
                (box["per_class"][key], *_rates(concept["per_class"][key]), *_rates(boxes["per_class"][key])),
            )
            for key in box["per_class"]
        ),
    ]
    width = max(len(_short(key)) for key, _ in rows)
    columns = "".join(f"{title:>7}" for title in ("AP", "P", "R", "F1", "P", "R", "F1"))
    titles = [
        f"{'%':<{width}}{'box':>7}{'image has class':>21}{'boxes':>21}",
        f"{'':<{width}}{columns}",
    ]
    lines = [f"{_short(key):<{width}}" + "".join(_percent(value) for value in cells) for key, cells in rows]
    return "\n".join(
        [
            f"{name}: {head}",
            f"average recall: {recalls}",
            *titles,
            *lines,
            *_notes(concept, boxes),
            *_voc(values.get("voc")),
        ]
    )


def _notes(concept: dict, boxes: dict) -> list[str]:
    return [
        f"score >= {concept['threshold']:.2f}, box IoU >= {boxes['iou']:.2f}; "
        f"mAP of images {_percent(concept['mAP']).strip()}",
        f"best on this set: images {_best(concept)}; boxes {_best(boxes)}",
    ]


def _voc(values: dict | None) -> list[str]:
    if values is None:
        return []
    measure = "eleven points, as until 2009" if values["eleven_points"] else "area, as since 2010"
    return [f"PASCAL VOC AP50 {_percent(values['AP50']).strip()} ({measure})"]


def _best(values: dict) -> str:
    if values["best_f1"] is None:
        return "-"
    return f"F1 {_percent(values['best_f1']).strip()} at {values['best_threshold']:.3f}"


def _rates(values: dict) -> Sequence[float | None]:
    return [values[key] for key in RATES]


def _percent(value: float | None) -> str:
    return f"{'-':>7}" if value is None else f"{100 * value:7.1f}"


def _short(name: str) -> str:
    return name if len(name) <= NAME_WIDTH else name[: NAME_WIDTH - 2] + ".."
