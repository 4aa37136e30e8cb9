# SPDX-License-Identifier: Apache-2.0
"""The page's section about a data set, and the same tables for every source of its images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from detectron_libra.analysis.inventory import AREAS
from detectron_libra.analysis.numbers import QUANTILES
from detectron_libra.report.markup import Html
from detectron_libra.report.page import details, facts, figure, figures, heading, note, paragraph, table
from detectron_libra.report.svg import bar_plot, histogram
from detectron_libra.report.texts import percent

Tables = Mapping[str, Any]


def data_parts(data: Tables) -> list[Html]:
    """Tables and plots of all images, then those of every source, folded up."""
    parts = tables_of(data)
    sources = data["by_source"]
    if not sources:
        return parts
    columns = (
        "source",
        "images",
        "boxes",
        "boxes per image",
        "without boxes, %",
        "side, px (median)",
        "recall, %",
    )
    rows = [
        [
            name,
            one["images"],
            one["boxes"],
            one["crowding"]["mean_boxes_per_image"],
            percent(one["images_without_boxes"]["share"]),
            one["size"]["side_px"]["p50"],
            percent(one["anchor_recall"].get("recall")),
        ]
        for name, one in sources.items()
    ]
    parts += [heading("By source"), table(columns, rows, caption="Where the images come from")]
    return parts + [details(f"Source: {name}", *tables_of(one)) for name, one in sources.items()]


def tables_of(data: Tables) -> list[Html]:
    """The tables and plots of some images."""
    empty = data["images_without_boxes"]
    totals = {
        "images": data["images"],
        "boxes": data["boxes"],
        "crowd regions": data["crowds"],
        "images without boxes": f"{empty['count']} ({percent(empty['share'])} %)",
        "boxes that overlap another by IoU 0.3 or more": f"{percent(data['crowding']['overlapping'])} %",
    }
    return [
        facts(totals),
        heading("Classes"),
        classes(data["classes"]),
        heading("Sizes, shapes, crowding"),
        *sizes(data),
        shapes(data),
        heading("Best possible recall of the anchors"),
        *recall(data["anchor_recall"]),
        heading("Suspicious boxes"),
        suspicious(data["suspicious"]),
    ]


def classes(counts: Tables) -> Html:
    """Boxes and images of each class."""
    rows = [[name, one["boxes"], percent(one["share"]), one["images"]] for name, one in counts.items()]
    return table(("class", "boxes", "share, %", "images"), rows, caption="Boxes and images by class")


def sizes(data: Tables) -> list[Html]:
    """Quantiles of sizes, shapes and counts."""
    size = data["size"]
    rows = [
        ["side, px of the original", *size["side_px"].values()],
        ["side, px as the network sees it", *size["side_px_at_input"].values()],
        ["width / height", *data["aspect"]["width_over_height"].values()],
        ["boxes per image", *data["crowding"]["boxes_per_image"].values()],
    ]
    shares = ", ".join(f"{name} {percent(size[name])} %" for name in AREAS)
    return [
        paragraph(f"COCO's sizes: {shares}. The side of a box is the root of its area."),
        table(("", *QUANTILES), rows, caption="Quantiles"),
    ]


def shapes(data: Tables) -> Html:
    """Histograms of shape and crowding."""
    aspect, crowding = data["aspect"]["histogram"], data["crowding"]["histogram"]
    edges = crowding["edges"]
    names = [_range(low, high, last=high == edges[-1]) for low, high in zip(edges, edges[1:], strict=False)]
    return figures(
        figure(
            histogram(
                aspect["edges"],
                {"boxes": aspect["counts"]},
                title="Boxes by width over height",
                x_label="width / height",
                y_label="boxes",
                log_x=True,
            ),
            "Shapes of the boxes.",
        ),
        figure(
            bar_plot(names, {"": crowding["counts"]}, title="Images by number of boxes", x_label="images"),
            "Images by how many boxes they have.",
        ),
    )


def _range(low: float, high: float, *, last: bool) -> str:
    if last:
        return f"{low:g} or more"
    return f"{low:g}" if high - low == 1 else f"{low:g} to {high - 1:g}"


def recall(found: Tables) -> list[Html]:
    """Recall of the anchors by size and class, or why there is none."""
    if "missing" in found:
        return [note(found["missing"])]
    groups = {"all boxes": found["all"], **found["by_size"], **found["by_class"]}
    thresholds = list(found["all"]["recall"])
    rows = [
        [name, one["boxes"], one["mean_best_iou"], *(percent(one["recall"][t]) for t in thresholds)]
        for name, one in groups.items()
    ]
    head = ("boxes", "number", "mean best IoU", *(f"% at IoU {t}" for t in thresholds))
    told = (
        "Which share of the boxes has an anchor that overlaps it so much. In training an anchor is positive from "
        f"{found['positive_iou']:g} on."
    )
    return [paragraph(told), table(head, rows, caption="Boxes that the anchors can cover")]


def suspicious(kinds: Sequence[Tables]) -> Html:
    """What is worth a look."""
    if not kinds:
        return facts({"suspicious boxes": "none"})
    rows = [[f"{one['kind']} ({one['count']})", "; ".join(one["examples"])] for one in kinds]
    return table(("kind and number", "first ones"), rows, texts=2, long=True, caption="Worth a look")
