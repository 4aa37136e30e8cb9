# SPDX-License-Identifier: Apache-2.0
"""One step of a training: losses, gradient, guard, update."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from detectron_libra.engine import rng
from detectron_libra.engine.guard import Guard, Step, memory_errors_named
from detectron_libra.structures import Batch


def train_step(
    model: nn.Module,
    batch: Batch,
    optimizer: Optimizer,
    guard: Guard,
    *,
    iteration: int,
    lr: float,
    loss_weights: Mapping[str, float],
    precision: str = "fp32",
    clip_grad_norm: float = 0.0,
) -> dict[str, Tensor]:
    """One step: losses, gradient, guard, update.

    Args:
        model: in train mode, on the device of ``batch``.
        optimizer: has the learning rate ``lr``, which is for messages here.
        guard: of the optimizer.
        iteration: for messages.
        loss_weights, precision, clip_grad_norm: see ``train.train``.

    Returns:
        What metrics are made of, 0-d tensors: the total, its weighted and raw parts, the model's metrics, and
        the norm of the gradient.

    Raises:
        NonFinite: a loss or gradient that is not finite. RunError: no memory.
    """
    state = rng.get_state()
    guard.remember()
    with memory_errors_named(batch):
        raw, values, total = losses_of(model, batch, loss_weights, precision)
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        norm = _clip(optimizer, clip_grad_norm)
        if guard.check(Step(iteration, lr, raw, norm, batch, state), total):
            optimizer.step()
    return values | {"grad_norm": norm}


def losses_of(
    model: nn.Module, batch: Batch, weights: Mapping[str, float], precision: str
) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
    """Runs the model in train mode.

    Returns:
        (raw losses, what metrics are made of, total), all 0-d; the total is of the weighted losses.
    """
    with torch.autocast(batch.images.device.type, torch.bfloat16, enabled=precision == "bf16"):
        raw, metrics = model(batch)
    weighted = {name: weights[name] * loss for name, loss in raw.items()}
    total = torch.stack(list(weighted.values())).sum()
    values = {"loss": total}
    values |= {f"loss_{name}": loss for name, loss in weighted.items()}
    values |= {f"raw_loss_{name}": loss for name, loss in raw.items()}
    return raw, values | metrics, total


def _clip(optimizer: Optimizer, limit: float) -> Tensor:
    """Scales the gradient down to ``limit`` (0: leaves it); returns its L2 norm before that, (0-d)."""
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters])
    if limit > 0:
        torch.nn.utils.clip_grads_with_norm_(parameters, limit, norm)
    return norm
