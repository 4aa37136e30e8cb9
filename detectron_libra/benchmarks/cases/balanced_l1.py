# SPDX-License-Identifier: Apache-2.0
"""Balanced L1, summed and divided: the residuals of some boxes, value and gradient."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from detectron_libra.benchmarks.case import Case, Problem, Setup, generator, size_in_bytes
from detectron_libra.benchmarks.sizes import box_counts
from detectron_libra.ops.balanced_l1 import balanced_l1

ALPHA, GAMMA, BETA = 0.5, 1.5, 1.0


def cases(setup: Setup) -> list[Case]:
    """The boxes of an R-CNN head, and every anchor of a dense one."""
    return [
        Case("balanced_l1", f"{count}", "-", dtype, partial(_problem, setup, count, dtype))
        for count in box_counts(setup)
        for dtype in (("float32", "bfloat16") if setup.full or setup.device == "cuda" else ("float32",))
    ]


def eager(pred: Tensor, target: Tensor) -> Tensor:
    """As mmdetection: both branches for every element, then a choice, then a mean."""
    b = math.exp(GAMMA / ALPHA) - 1
    distance = (pred.float() - target.float()).abs()
    near = ALPHA / b * (b * distance + 1) * torch.log(b * distance / BETA + 1) - ALPHA * distance
    far = GAMMA * distance + GAMMA / b - ALPHA * BETA
    return torch.where(distance < BETA, near, far).sum() / pred.shape[0]


def ours(pred: Tensor, target: Tensor) -> Tensor:
    """The operator with its own reduction."""
    return balanced_l1(
        pred, target, alpha=ALPHA, gamma=GAMMA, beta=BETA, reduction="mean", normalizer=pred.shape[0]
    )


def _problem(setup: Setup, count: int, dtype: str) -> Problem:
    g = generator(setup)
    pred, target = (
        torch.randn(count, 4, generator=g, device=setup.device).to(getattr(torch, dtype)) for _ in range(2)
    )
    read = size_in_bytes(pred, target)
    return Problem(
        inputs=[pred.requires_grad_(), target],
        ours=ours,
        eager=eager,
        # Both inputs read; the gradient of pred written. The loss is one number.
        bytes_fwd=read,
        bytes_fwdbwd=read + size_in_bytes(pred),
        rtol=1e-4 if dtype == "float32" else 1e-2,
    )
