# SPDX-License-Identifier: Apache-2.0
"""The first convolution of RetinaNet's head, on all levels P3..P7, and the 3x3 convolution of a backbone's stage."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from detectron_libra.benchmarks.case import Case, Problem, Setup, generator, size_in_bytes
from detectron_libra.benchmarks.sizes import SMALL, Images, channels, feature_maps, images
from detectron_libra.ops.conv3x3 import conv3x3

LEVELS, STAGE = range(3, 8), range(3, 4)


def cases(setup: Setup) -> list[Case]:
    """Every image size; on a CPU, unless asked for more, the small images."""
    batches = [SMALL] if setup.device == "cpu" and not (setup.full or setup.quick) else images(setup)
    return [
        Case(
            "conv3x3",
            f"{batch.name} {name}",
            "channels_last",
            dtype,
            partial(_problem, setup, batch, levels, dtype),
        )
        for batch in batches
        for name, levels in (("P3-P7", LEVELS), ("C3", STAGE))
        for dtype in ("float32", "bfloat16")
    ]


def eager(weight: Tensor, bias: Tensor, *levels: Tensor) -> list[Tensor]:
    """Level by level."""
    weight, bias = weight.to(levels[0].dtype), bias.to(levels[0].dtype)
    return [F.conv2d(level, weight, bias, padding=1) for level in levels]


def ours(weight: Tensor, bias: Tensor, *levels: Tensor) -> list[Tensor]:
    """All levels together."""
    return conv3x3(levels, weight, bias)


def _problem(setup: Setup, batch: Images, which: range, dtype: str) -> Problem:
    depth = 16 if setup.quick else channels(setup)
    levels = feature_maps(setup, batch, which, depth, "channels_last", dtype)
    g = generator(setup, 1)
    # Gradients of the weights are sums over all cells of what arrives, some 1.5, times the inputs. With weights that
    # make the outputs as large, one tolerance serves everything.
    cells = sum(level.numel() // depth for level in levels)
    size = 1.5 * cells**0.5
    weight = torch.randn(depth, depth, 3, 3, generator=g, device=setup.device) * (size / (3 * depth**0.5))
    weight = weight.contiguous(memory_format=torch.channels_last).requires_grad_()
    bias = torch.randn(depth, generator=g, device=setup.device).requires_grad_()
    maps, filters = size_in_bytes(*levels), size_in_bytes(weight, bias)
    # The direct sum's arithmetic: what Winograd's algorithm saves shows as a time under this floor.
    flops = 2 * 9 * depth**2 * cells
    half = dtype != "float32"
    return Problem(
        inputs=[weight, bias, *levels],
        ours=ours,
        eager=eager,
        bytes_fwd=2 * maps + filters,
        bytes_fwdbwd=5 * maps + 3 * filters,
        flops_fwd=flops,
        flops_fwdbwd=3 * flops,
        rtol=3e-2 if half else 1e-3,
        # Eight times the standard deviation of the error: 5e-3 of the size in bfloat16.
        atol=(4e-2 if half else 2e-4) * size,
    )
