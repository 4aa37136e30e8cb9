# SPDX-License-Identifier: Apache-2.0
"""The page's sections about a detector: its samples, its features, the parts of its loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detectron_libra.report.markup import Html
from detectron_libra.report.page import figure, figures, heading, note, paragraph, table
from detectron_libra.report.svg import bar_plot, heat_map, histogram
from detectron_libra.report.texts import percent

Tables = Mapping[str, Any]
#: Ways of choosing negatives, and their names.
WAYS = {"hard": "hard", "random": "random", "iou_balanced": "IoU-balanced"}


def sample_parts(sample: Tables) -> list[Html]:
    """Negatives and positives of the last stage, then of the one before."""
    parts = stage_parts(sample)
    first = sample["first_stage"]
    return parts if first is None else [*parts, heading("First stage"), *stage_parts(first)]


def stage_parts(stage: Tables) -> list[Html]:
    """Negatives and positives of one stage."""
    negatives, kind = stage["negatives"], stage["of"]
    paper = negatives["paper"]
    rows = [
        [name, negatives[way]["count"], percent(negatives[way]["above"]), percent(paper.get(way))]
        for way, name in {**WAYS, "all": "all there are"}.items()
    ]
    above = f"% above IoU {negatives['above_iou']:g}"
    shares = {name: negatives[way]["shares"] for way, name in WAYS.items()}
    plot = histogram(
        negatives["edges"],
        shares,
        title=f"IoU of negative {kind} by way of choosing",
        x_label="IoU with the nearest object",
        y_label="share",
    )
    return [
        heading(f"Negative {kind}"),
        table(
            ("choice", "number", above, "in the paper, %"), rows, caption="As many negatives in three ways"
        ),
        figures(
            figure(plot, f"Hard: the negative {kind} that the detector takes for objects most."),
            figure(
                bar_plot(
                    list(stage["per_level"]),
                    {"": [one["share"] for one in stage["per_level"].values()]},
                    title=f"Share of the positive {kind} by level",
                    x_label="share of the positives",
                ),
                f"Levels that the positive {kind} belong to.",
            ),
        ),
        heading(f"Positive {kind} per object"),
        positives(stage["per_instance"]),
        means(stage["per_instance"]),
    ]


def positives(per_instance: Tables) -> Html:
    """How evenly positives are spread over the objects."""
    rows = [
        [
            name,
            one["mean"],
            *(one["quantiles"][q] for q in ("p5", "p50", "p95", "max")),
            percent(one["without"]),
            percent(one["top_tenth_share"]),
        ]
        for name, one in (("all positives", per_instance), ("drawn by a step", per_instance["drawn"]))
    ]
    head = ("", "mean", "p5", "p50", "p95", "max", "objects without, %", "share of the top tenth, %")
    return table(head, rows, caption=f"Positives of each of {per_instance['instances']} objects")


def means(per_instance: Tables) -> Html:
    """Positives per object by size and class."""
    groups = {**per_instance["mean_by_size"], **per_instance["mean_by_class"]}
    return table(("objects", "positives each"), list(groups.items()), caption="Mean by size and class")


def feature_parts(feature: Tables) -> list[Html]:
    """The levels before and after they are balanced, or why there are none."""
    if "missing" in feature:
        return [note(feature["missing"])]
    levels = feature["levels"]
    columns = {
        "energy_before": "energy before",
        "energy_after": "energy after",
        "gradient_before": "gradient before",
        "gradient_after": "gradient after",
        "contribution": "share of the integrated map",
    }
    rows = [[name, *(one[c] for c in columns)] for name, one in levels.items()]
    told = (
        f"Balanced by {feature['balanced_by']}, integrated at {feature['integrated_at']}. Energy is the root of the "
        "mean square; the gradient is the L2 norm of that of the weighted loss by the level."
    )
    shares = feature["gradient_shares"]
    return [
        paragraph(told),
        table(("level", *columns.values()), rows, caption="Before and after the balanced pyramid"),
        figures(
            figure(
                bar_plot(
                    list(levels),
                    {"before": shares["before"], "after": shares["after"]},
                    title="Share of the gradient by level",
                    x_label="share of the gradient",
                ),
                "Which levels the loss teaches: behind the balanced pyramid, and in front of it.",
            ),
            *(similarity(feature, when) for when in ("before", "after")),
        ),
    ]


def similarity(feature: Tables, when: str) -> Html:
    """How alike the levels are."""
    names = list(feature["levels"])
    plot = heat_map(
        feature["similarity"][when],
        rows=names,
        columns=names,
        title=f"Similarity of levels {when} balancing",
        largest=1.0,
        form=lambda v: f"{v:.2f}",
    )
    return figure(plot, f"Cosine between levels {when} balancing, at one size; 1 is equal.")


def objective_parts(objective: Tables) -> list[Html]:
    """Pull of each part of the loss, and inliers against outliers."""
    box = objective["box_gradient"]
    told = (
        f"Whose gradient the box loss is made of, over {box['residuals']} numbers of encoded boxes. Inliers are off by "
        f"less than beta. In the paper an inlier has about {percent(box['paper_inlier_over_outlier'], 0)} % of an "
        "outlier's gradient."
    )
    return [
        paragraph(
            f"With the last column's weights every part would pull as {objective['equal_to']} does now."
        ),
        pulls(objective["parts"], objective["equalising_weights"]),
        paragraph(told),
        inliers({"smooth L1": box["smooth_l1"], "balanced L1": box["balanced_l1"]}),
    ]


def pulls(parts: Tables, weights: Tables) -> Html:
    """Gradient of each part of the loss."""
    columns = ("loss", "weight", "gradient_norm", "weighted_gradient_norm")
    rows = [
        [name, *(one[column] for column in columns), percent(one["share"]), weights[name]]
        for name, one in parts.items()
    ]
    head = (
        "part",
        "raw loss",
        "weight",
        "gradient norm, raw",
        "weighted",
        "share, %",
        "weight for equal pull",
    )
    return table(head, rows, caption="Gradient of each part at the shared features")


def inliers(losses: Tables) -> Html:
    """Shares of inliers and outliers under each loss."""
    columns = {
        "inliers": "inliers, %",
        "inlier_gradient": "gradient from inliers, %",
        "outlier_gradient": "from outliers, %",
        "inlier_over_outlier": "an inlier's part of an outlier's, %",
    }
    rows = [
        [name, one["beta"], *(percent(one[column]) for column in columns)] for name, one in losses.items()
    ]
    return table(("loss", "beta", *columns.values()), rows, caption="Inliers and outliers of the box loss")
