# SPDX-License-Identifier: Apache-2.0
"""A training step on a GPU never waits for a value of the device: the host runs ahead and keeps it busy."""

import os
from functools import partial

import pytest
import torch

from detectron_libra.builders import session
from detectron_libra.builders.detector import build_detector, loss_weights
from detectron_libra.builders.solver import build_solver
from detectron_libra.engine.guard import Guard
from detectron_libra.engine.step import train_step
from tests.builders.small import config, libra
from tests.modeling.scenes import batch, targets

WARM_UPS = 3


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("make", [config, libra])
@pytest.mark.parametrize("kind", ["retinanet", "faster_rcnn"])
def test_a_step_on_a_gpu_waits_for_nothing(kind, make, precision):
    """torch raises where something synchronises, after steps in which libraries set themselves up."""
    if not torch.cuda.is_available():
        if os.getenv("REQUIRE_CUDA") == "1":
            pytest.fail("REQUIRE_CUDA=1, and torch sees no GPU")
        pytest.skip("no GPU")
    cfg = make(kind)
    device = torch.device("cuda")
    model = session.place(cfg, build_detector(cfg, 4), device).train()
    optimizer, _ = build_solver(cfg, model)
    guard, weights = Guard(optimizer), loss_weights(cfg)
    found = targets([(4, 6, 40, 50, 1), (20, 8, 60, 33, 2)], [(10, 10, 30, 44, 3)])
    pinned = [batch([(64, 64), (56, 64)], found, seed=seed).pin_memory() for seed in range(2 * WARM_UPS)]
    step = partial(
        train_step, model, optimizer=optimizer, guard=guard, loss_weights=weights, precision=precision
    )
    for iteration, one in enumerate(pinned[:WARM_UPS]):
        step(one.to(device), iteration=iteration, lr=1e-4)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for iteration, one in enumerate(pinned[WARM_UPS:], start=WARM_UPS):
            step(one.to(device), iteration=iteration, lr=1e-4)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    guard.flush()
