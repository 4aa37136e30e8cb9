# SPDX-License-Identifier: Apache-2.0
"""The benchmark from what the user asks for to the result."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from detectron_libra.builders.benchmark.plan import (
    OURS,
    TORCHVISION,
    Ask,
    Contender,
    contenders,
    orders,
    usual_size,
)
from detectron_libra.builders.benchmark.result import environment, ratios, row, warnings
from detectron_libra.builders.benchmark.their_model import differences, require_counterpart
from detectron_libra.builders.benchmark.turns import Measured, measure
from detectron_libra.builders.data import class_names_at_hand
from detectron_libra.builders.session import pick_device
from detectron_libra.config import Config, infer, with_values

log = logging.getLogger(__name__)

#: COCO's, with background: where the configuration leaves the classes to data that is not there.
USUAL_CLASSES = 81


def benchmark(
    ask: Ask, *, trace: Path | None = None, told: Callable[[str], object] = lambda _: None
) -> dict[str, Any]:
    """Measures what is asked for.

    Args:
        trace: file for a Chrome trace of ours, in the first mode and precision.
        told: called with a line whenever something begins.

    Returns:
        {"env", "rows", "ratios"}, plain data.

    Raises:
        LibraError: of a contender, with its name.
    """
    others = tuple((text, with_classes(cfg)) for text, cfg in ask.versus)
    ask = replace(ask, cfg=with_classes(ask.cfg), versus=others)
    pick_device(ask.cfg)  # now rather than in a worker
    notes: list[str] = []
    found: list[Measured] = []
    for mode in ask.modes:
        who, why = contenders(ask, mode)
        if why and why not in notes:
            notes.append(why)
            log.warning("%s", why)
        if any(one.impl == TORCHVISION for one in who):
            require_counterpart(ask.cfg)
            notes += [line for line in differences(ask.cfg) if line not in notes]
        notes += [line for line in [padding(ask, mode)] if line and line not in notes]
        found += _measure(ask, who, mode, None if found else trace, told)
        if ask.loader:
            own = [Contender(OURS, mode, precision, loader=True) for precision in ask.precisions]
            found += _measure(ask, own, mode, None, told)
    if not ask.loader:
        notes.append("batches lie in memory, generated: nothing waits for data; --data measures that")
    rows, pairs = [row(one) for one in found], ratios(found)
    for line in warnings(rows, pairs):
        log.warning("%s", line)
    return {"env": environment(ask, notes), "rows": rows, "ratios": pairs}


def _measure(
    ask: Ask, who: list[Contender], mode: str, trace: Path | None, told: Callable[[str], object]
) -> list[Measured]:
    return measure(orders(ask, who, mode), warm_ups=ask.warm_ups, rounds=ask.rounds, trace=trace, told=told)


def with_classes(cfg: Config) -> Config:
    """The configuration with a number of classes."""
    if cfg.MODEL.NUM_CLASSES == -1:
        names = class_names_at_hand(cfg)
        cfg = with_values(cfg, {"MODEL.NUM_CLASSES": len(names) + 1 if names else USUAL_CLASSES})
    return infer(cfg)


def padding(ask: Ask, mode: str) -> str:
    """A note where batches of data would be padded further than the generated ones are."""
    cfg = ask.cfg
    stride = cfg.FPN.COARSEST_STRIDE if cfg.FPN.FPN_ON else 0
    size = ask.size or usual_size(cfg, mode)
    ours, theirs = size.padded(ask.pad_to), size.padded(stride) if stride else size
    if ours == theirs:
        return ""
    return (
        f"{mode}: both sides pad images of {size} to {ours}; FPN.COARSEST_STRIDE {stride} pads those of data to "
        f"{theirs} (--pad-to {stride} does so here, on both sides)"
    )
