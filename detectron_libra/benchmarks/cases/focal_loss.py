# SPDX-License-Identifier: Apache-2.0
"""Sigmoid focal loss of a RetinaNet head's raw output on all its levels, 80 classes, 9 anchors a cell."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from detectron_libra.benchmarks.case import Case, Problem, Setup, generator, size_in_bytes
from detectron_libra.benchmarks.sizes import CLASSES, Images, feature_maps, map_variants
from detectron_libra.ops.focal_loss import focal_loss

LEVELS, ANCHORS, ALPHA, GAMMA = range(3, 8), 9, 0.25, 2.0
#: Shares of positive and of ignored anchors in a training step, about.
POSITIVE, IGNORED = 0.002, 0.005


def cases(setup: Setup) -> list[Case]:
    """Every image size."""
    classes = 3 if setup.quick else CLASSES
    return [
        Case(
            "focal_loss",
            f"{batch.name} {classes} classes",
            layout,
            dtype,
            partial(_problem, setup, batch, classes, layout, dtype),
        )
        for batch, layout, dtype in map_variants(setup)
    ]


def eager(classes: int, labels: Tensor, *levels: Tensor) -> Tensor:
    """As torchvision's RetinaNet: permute and join the levels, one-hot targets, the loss of each logit, a sum."""
    logits = torch.cat([_rows(x, classes) for x in levels], 1).float()
    positive = F.one_hot(labels.clamp(min=0), classes + 1)[..., 1:].to(logits.dtype)
    p = logits.sigmoid()
    cross_entropy = F.binary_cross_entropy_with_logits(logits, positive, reduction="none")
    p_right = p * positive + (1 - p) * (1 - positive)
    share = ALPHA * positive + (1 - ALPHA) * (1 - positive)
    loss = share * cross_entropy * (1 - p_right) ** GAMMA
    return (loss * (labels >= 0)[..., None]).sum()


def ours(classes: int, labels: Tensor, *levels: Tensor) -> Tensor:
    """The operator, all levels in one call."""
    return focal_loss(levels, labels, alpha=ALPHA, gamma=GAMMA, num_classes=classes)


def _rows(x: Tensor, classes: int) -> Tensor:
    """(N, A*C, H, W) as (N, H*W*A, C)."""
    images, _, height, width = x.shape
    return x.view(images, -1, classes, height, width).permute(0, 3, 4, 1, 2).reshape(images, -1, classes)


def _problem(setup: Setup, batch: Images, classes: int, layout: str, dtype: str) -> Problem:
    levels = feature_maps(setup, batch, LEVELS, ANCHORS * classes, layout, dtype)
    count = sum(x.shape[2] * x.shape[3] for x in levels) * ANCHORS
    g = generator(setup, 2)
    draw = torch.rand(batch.batch, count, generator=g, device=setup.device)
    labels = torch.randint(1, classes + 1, draw.shape, generator=g, device=setup.device)
    labels = torch.where(draw < POSITIVE, labels, 0).where(draw < 1 - IGNORED, -1)
    read = size_in_bytes(labels, *levels)
    return Problem(
        inputs=[labels, *levels],
        ours=partial(ours, classes),
        eager=partial(eager, classes),
        # Logits and labels read; the gradient of the logits written. The loss is one number.
        bytes_fwd=read,
        bytes_fwdbwd=read + size_in_bytes(*levels),
        rtol=1e-4 if dtype == "float32" else 2e-2,
    )
