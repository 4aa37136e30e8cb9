# SPDX-License-Identifier: Apache-2.0
"""The balanced feature pyramid without its refinement: integrate and strengthen together, five levels."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from detectron_libra.benchmarks.case import Case, Problem, Setup, size_in_bytes
from detectron_libra.benchmarks.sizes import Images, channels, feature_maps, map_variants
from detectron_libra.ops.pyramid import balance

#: P2..P6, brought together at P4, as Libra R-CNN has it.
LEVELS, REFINE = range(2, 7), 2


def cases(setup: Setup) -> list[Case]:
    """Every image size."""
    return [
        Case(
            "pyramid",
            f"{batch.name} P2-P6",
            layout,
            dtype,
            partial(_problem, setup, batch, layout, dtype),
        )
        for batch, layout, dtype in map_variants(setup)
    ]


def eager(*levels: Tensor) -> list[Tensor]:
    """As mmdetection's BFP: resize each level and add, divide; then resize the result and add it to each."""
    size = levels[REFINE].shape[2:]
    total = _resize(levels[0], size)
    for level in levels[1:]:
        total = total + _resize(level, size)
    refined = total / len(levels)
    return [level + _resize(refined, level.shape[2:]) for level in levels]


def ours(*levels: Tensor) -> tuple[Tensor, ...]:
    """Both operators, nothing between them, as the model calls them."""
    return balance(levels, REFINE)


def _resize(x: Tensor, size: torch.Size) -> Tensor:
    if x.shape[2:] == size:
        return x
    if x.shape[2] > size[0]:
        return F.adaptive_max_pool2d(x, size)
    return F.interpolate(x, size=size, mode="nearest")


def _problem(setup: Setup, batch: Images, layout: str, dtype: str) -> Problem:
    levels = feature_maps(setup, batch, LEVELS, channels(setup), layout, dtype)
    every, one = size_in_bytes(*levels), size_in_bytes(levels[REFINE])
    # integrate: all levels read, one written. strengthen: all and the one read, all written. The backward pass
    # is the same with the directions turned: strengthen reads the gradients of all levels and writes that of
    # the one; integrate reads it and the gradients that are there, and writes all.
    once = 3 * every + 2 * one
    half = dtype != "float32"
    return Problem(
        inputs=list(levels),
        ours=ours,
        eager=eager,
        bytes_fwd=once,
        bytes_fwdbwd=2 * once,
        rtol=2e-2 if half else 1e-4,
        atol=2e-2 if half else 1e-5,
    )
