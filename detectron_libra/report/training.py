# SPDX-License-Identifier: Apache-2.0
"""The sections of a run report about the training: losses, learning rate, gradient, pace, results over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from detectron_libra.report.history import History, over_time
from detectron_libra.report.markup import Html
from detectron_libra.report.page import Section, figure, figures, note
from detectron_libra.report.svg import Series, line_plot
from detectron_libra.report.texts import is_number

#: A quantity whose values are this many times apart gets a logarithmic axis.
SPREAD = 100
ITERATION = "iteration"
MEDIANS = "Each point is the median of the last 20 iterations, so that single steps do not hide the run."
#: Columns with a plot of their own, and those that say nothing as a curve.
DRAWN = {"iter", "lr", "loss", "grad_norm", "images_per_s", "data_time", "mem", "eta", "time", "mb_qsize"}


def training_sections(history: History, end: int) -> list[Section]:
    """Losses, the learning rate and the gradient, and the pace, each as far as there are numbers of it.

    Args:
        history: of the run.
        end: iteration that the plots end at.
    """
    if not history.steps:
        return [Section("Training", [note("metrics.jsonl has no line about a step: nothing can be drawn.")])]
    return [
        Section("Losses", [*_warnings(history), MEDIANS, _losses(history, end)]),
        Section("Learning rate and gradient", [_rate_and_gradient(history, end)]),
        Section("Pace", [_pace(history, end)]),
        *_others(history, end),
    ]


def results_over_time(
    history: History, final: Mapping[str, Any], last: int | None, *, period: int, end: int
) -> Section:
    """Average precision, or recall of proposals, of every data set over the iterations.

    Args:
        history, final, last: as in ``history.over_time``.
        period: iterations between evaluations; 0: none before the end.
        end: iteration that the plots end at.
    """
    found = over_time(history, final, last)
    plots = [
        figure(
            line_plot(
                [_joined(name, points, place) for place, (name, points) in enumerate(values.items())],
                title=f"{dataset}: {', '.join(values)} over iterations",
                x_label=ITERATION,
                x_limits=(0, end),
                y_label="fraction",
                with_zero=True,
            ),
            "the last point is of the final weights" if last is not None else "",
            title=dataset,
        )
        for dataset, values in found.items()
    ]
    parts: list[object] = [figures(*plots)] if plots else [note("Nothing was measured in this run.")]
    if plots and not history.evaluations:
        parts = [_once(period), *parts]
    return Section("Results over time", parts)


def _once(period: int) -> Html:
    why = "TRAIN.EVAL_PERIOD is 0" if period == 0 else f"TRAIN.EVAL_PERIOD is {period}"
    return note(f"Measured at the end only: {why}. Set it to see results grow.")


def _joined(name: str, points: Sequence[tuple[int, float]], place: int) -> Series:
    return Series(name, [x for x, _ in points], [y for _, y in points], colour=place)


def _warnings(history: History) -> list[Html]:
    told = []
    if history.unreadable:
        told.append(note(f"{history.unreadable} lines of metrics.jsonl cannot be read and are left out."))
    if count := history.not_finite():
        told.append(
            note(f"A loss is not finite in {count} of {len(history.steps)} lines: gaps in the curves.")
        )
    return told


def _losses(history: History, end: int) -> Html:
    weighted = ["loss", *history.names("loss_")]
    raw = history.names("raw_loss_")
    return figures(
        _plot(
            history,
            end,
            weighted,
            title="Weighted losses",
            caption="what is trained: raw losses times LOSS.WEIGHTS",
        ),
        _plot(history, end, raw, title="Raw losses", caption="before their weights"),
    )


def _rate_and_gradient(history: History, end: int) -> Html:
    return figures(
        _plot(history, end, ["lr"], title="Learning rate", with_zero=True),
        _plot(
            history,
            end,
            ["grad_norm"],
            title="Gradient norm",
            caption="L2, of all parameters, before it is clipped",
        ),
    )


def _pace(history: History, end: int) -> Html:
    return figures(
        _plot(history, end, ["images_per_s"], title="Images per second", with_zero=True),
        _plot(
            history,
            end,
            ["data_time"],
            title="Share of time spent waiting for data",
            caption="near 0, the readers keep up; otherwise raise DATA_LOADER.NUM_THREADS",
            limits=(0.0, 1.0),
        ),
        _plot(
            history,
            end,
            ["mem"],
            title="Memory in MiB",
            caption="the most that was held so far",
            with_zero=True,
        ),
    )


def _others(history: History, end: int) -> list[Section]:
    """Whatever else the model tells of, a plot for each."""
    others = [
        name for name in history.names() if name not in DRAWN and not name.startswith(("loss_", "raw_loss_"))
    ]
    if not others:
        return []
    return [
        Section("Other metrics", [figures(*(_plot(history, end, [name], title=name) for name in others))])
    ]


def _plot(
    history: History,
    end: int,
    names: Sequence[str],
    *,
    title: str,
    caption: str = "",
    with_zero: bool = False,
    limits: tuple[float, float] | None = None,
) -> Html:
    columns = {name: history.column(name) for name in names}
    log = not with_zero and limits is None and _far_apart(columns)
    series = [
        Series(_short(name), history.iterations, column, colour=place)
        for place, (name, column) in enumerate(columns.items())
    ]
    told = ", ".join(part for part in (caption, "logarithmic" if log else "") if part)
    plot = line_plot(
        series,
        title=f"{title} over iterations",
        x_label=ITERATION,
        x_limits=(0, end),
        log_y=log,
        y_limits=limits,
        with_zero=with_zero,
        description=told,
    )
    return figure(plot, told, title=title)


def _short(name: str) -> str:
    return "total" if name == "loss" else name.removeprefix("raw_").removeprefix("loss_")


def _far_apart(columns: Mapping[str, Sequence[Any]]) -> bool:
    values = [v for column in columns.values() for v in column if is_number(v)]
    above = [v for v in values if v > 0]
    return bool(above) and len(above) == len(values) and max(above) > SPREAD * min(above)
