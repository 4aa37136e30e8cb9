# SPDX-License-Identifier: Apache-2.0
"""What was measured as plain data: a row per contender, a ratio per pair."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

from detectron_libra.benchmarks.measure import quantile
from detectron_libra.benchmarks.peer import torchvision
from detectron_libra.builders.benchmark.plan import OURS, PRECISIONS, REFERENCE, TORCHVISION, Ask, Contender
from detectron_libra.builders.benchmark.turns import Measured
from detectron_libra.builders.session import libra_parts, model_type, pick_device
from detectron_libra.machine import facts
from detectron_libra.ops import backend

#: Distance of the quartiles, as a share of the median, above which a number is marked.
UNSTEADY = 0.10
#: How many times as long as a timed step a profiled one may be before its shares are marked.
DISTURBED = 1.5
#: Variables of the environment that change the allocator of a process, whosever it is.
ALLOCATOR_VARIABLES = ("LD_PRELOAD", "GLIBC_TUNABLES", "MALLOC_")


def row(found: Measured) -> dict[str, Any]:
    """JSON object of one contender."""
    who, order, times = found.contender, found.order, found.times
    return {
        "impl": who.impl,
        "mode": who.mode,
        "precision": who.precision,
        "data": "loader" if who.loader else "generated",
        "images_per_s": order.batch / times.median,
        "step_s": times.median,
        "step_s_quartiles": [quantile(times.samples, q) for q in (0.25, 0.75)],
        "spread": times.spread,
        "samples_s": times.samples,
        "peak_bytes": found.peak[0],
        "peak_is": found.peak[1],
        "shares": found.profile["shares"],
        "parts_s": found.profile["parts"],
        "profiled_step_s": found.profile["profiled_step_s"],
        "batch": order.batch,
        "image_size": None if who.loader else list(order.size),
        "padded_size": None if who.loader else list(order.size.padded(order.pad_to)),
        "counts": found.counts,
        **found.facts,
    }


def ratios(found: Sequence[Measured]) -> list[dict[str, Any]]:
    """How many times faster and smaller ours is, for each pair of the same mode that says something.

    Precisions are compared as they are, and every one of ours with the peer's fp32.
    """
    ours = [m for m in found if m.contender.impl == OURS and not m.contender.loader]
    peers = [m for m in found if m.contender.impl != OURS]
    return [
        _ratio(mine, theirs)
        for mine in ours
        for theirs in peers
        if mine.contender.mode == theirs.contender.mode
        and theirs.contender.precision in (mine.contender.precision, *_besides(theirs.contender))
    ]


def _besides(theirs: Contender) -> tuple[str, ...]:
    """Precisions that every one of ours is compared with; under other values only the same one tells something."""
    return (PRECISIONS[0],) if theirs.is_peer or theirs.impl == REFERENCE else ()


def _ratio(mine: Measured, theirs: Measured) -> dict[str, Any]:
    pairs = [b / a for a, b in zip(mine.times.samples, theirs.times.samples, strict=True)]
    a, b = mine.contender, theirs.contender
    low, middle, high = (quantile(pairs, q) for q in (0.25, 0.5, 0.75))
    return {
        "mode": a.mode,
        "ours": a.precision,
        "peer": b.impl,
        "peer_precision": b.precision,
        "headline": b.impl == TORCHVISION and (a.precision, b.precision) == (PRECISIONS[1], PRECISIONS[0]),
        "speed": middle,
        "speed_quartiles": [low, high],
        "spread": (high - low) / middle,
        "pairs": pairs,
        "memory": theirs.peak[0] / mine.peak[0] if mine.peak[0] > 0 else None,
    }


def environment(ask: Ask, notes: Sequence[str]) -> dict[str, Any]:
    """What it was measured on and with."""
    cfg = ask.cfg
    return {
        **facts(pick_device(cfg).type),
        "operators": backend.describe(),
        "peer": torchvision()[1] if ask.peer else None,
        "allocator_variables": sorted(n for n in os.environ if n.startswith(ALLOCATOR_VARIABLES)),
        "model": model_type(cfg),
        "backbone": cfg.MODEL.CONV_BODY,
        "classes": cfg.MODEL.NUM_CLASSES,
        "libra_parts": libra_parts(cfg),
        "boxes_per_image": ask.boxes,
        "score_thresh": cfg.RETINANET.INFERENCE_TH if cfg.RETINANET.RETINANET_ON else cfg.TEST.SCORE_THRESH,
        "warm_ups": ask.warm_ups,
        "notes": list(notes),
    }


def warnings(rows: Sequence[dict[str, Any]], pairs: Sequence[dict[str, Any]]) -> Iterator[str]:
    """What is not steady enough to be relied on."""
    for one in rows:
        if one["spread"] > UNSTEADY:
            yield (
                f"unsteady: {one['impl']} {one['mode']} {one['precision']}: the quartiles are "
                f"{one['spread']:.0%} of the median apart"
            )
        if one["profiled_step_s"] > DISTURBED * one["step_s"]:
            yield (
                f"shares of {one['impl']} {one['mode']} {one['precision']} are of steps "
                f"{one['profiled_step_s'] / one['step_s']:.1f} times as long as those that were timed"
            )
    for one in pairs:
        if one["spread"] > UNSTEADY:
            yield (
                f"unsteady: {one['mode']} ours {one['ours']} over {one['peer']} {one['peer_precision']}: the ratio's "
                f"quartiles are {one['spread']:.0%} apart"
            )
