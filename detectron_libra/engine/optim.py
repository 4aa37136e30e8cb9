# SPDX-License-Identifier: Apache-2.0
"""The optimizer with Detectron's rules: what decays, how fast biases learn, what momentum means."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from detectron_libra.errors import InputError, UsageError

log = logging.getLogger(__name__)

NORMALISATION = (nn.GroupNorm, nn.LayerNorm, nn.modules.batchnorm._NormBase)
KINDS = ("sgd", "adamw")
#: Detectron rescales its momentum at a jump from a higher rate than this only (modeling/detector.py, _SetNewLr).
SMALLEST_RESCALED = 1e-7


def build_optimizer(
    model: nn.Module,
    *,
    kind: str = "sgd",
    lr: float,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    weight_decay_gn: float = 0.0,
    bias_lr_factor: float = 2.0,
    bias_decay: bool = False,
    fused: bool = True,
) -> Optimizer:
    """SGD with momentum, or AdamW, over what is trained.

    Args:
        model: parameters that need no gradient are left out.
        kind: ``sgd`` or ``adamw``.
        lr: of the first step; the loop sets it anew at each one.
        momentum: of SGD; AdamW's first beta.
        weight_decay: of weights; of biases too where ``bias_decay``.
        weight_decay_gn: of the scales of normalisation layers; their shifts are biases.
        bias_lr_factor: learning rate of biases over that of weights.
        bias_decay: biases decay as weights do.
        fused: one kernel for the whole update.

    Returns:
        An optimizer whose groups carry ``name`` and ``lr_factor``.

    Raises:
        UsageError: unknown ``kind``, or nothing to train.

    Source: Detectron's modeling/optimizer.py. Its gradient of biases times 2 is a learning rate times 2 here.
    """
    parts = _parts(model)
    if not any(parts.values()):
        raise UsageError("nothing to train: every parameter is frozen; lower TRAIN.FREEZE_AT")
    decay = {"weights": weight_decay, "norms": weight_decay_gn, "biases": weight_decay if bias_decay else 0.0}
    factor = {"biases": bias_lr_factor}
    groups = [
        {"params": params, "name": name, "weight_decay": decay[name], "lr_factor": factor.get(name, 1.0)}
        for name, params in parts.items()
        if params
    ]
    if kind == "sgd":
        optimizer: Optimizer = torch.optim.SGD(groups, lr=lr, momentum=momentum, fused=fused)
    elif kind == "adamw":
        optimizer = torch.optim.AdamW(groups, lr=lr, betas=(momentum, 0.999), fused=fused)
    else:
        raise UsageError(f"SOLVER.OPTIMIZER: {kind!r} is unknown; use one of {', '.join(KINDS)}")
    _write_lr(optimizer, lr)
    return optimizer


def set_lr(optimizer: Optimizer, lr: float, *, scale_momentum: bool = True, threshold: float = 1.1) -> None:
    """Sets the learning rate of the next step, and keeps the momentum that Detectron would have.

    Detectron subtracts V = momentum * V + lr * gradient from the weights, and multiplies V by new/old where
    the rate jumps by more than ``threshold``. PyTorch keeps V / lr, as if V were rescaled at every change:
    where Detectron does not, the buffer is multiplied by old/new.

    Args:
        optimizer: from build_optimizer.
        lr: learning rate of weights; biases get theirs.
        scale_momentum: whether V is rescaled at a jump.
        threshold: the ratio of rates that is a jump.
    """
    old = optimizer.param_groups[0]["lr"] / optimizer.param_groups[0]["lr_factor"]
    if lr != old and lr > 0:
        jump = old > SMALLEST_RESCALED and max(lr / old, old / lr) > threshold
        if not (scale_momentum and jump):
            _scale_momentum(optimizer, old / lr)
    _write_lr(optimizer, lr)


def load_state(optimizer: Optimizer, state: dict[str, Any], source: str) -> None:
    """Restores the buffers of a checkpoint; options stay as they were built, a difference is logged.

    Args:
        optimizer: as for the run that goes on.
        state: from ``Optimizer.state_dict``.
        source: path of the checkpoint, for messages.

    Raises:
        InputError: the state belongs to another kind of optimizer or to other parameters.
    """
    wanted = [dict(group) for group in optimizer.param_groups]
    remedy = "resume with the options of that run, or start anew with --no-resume"
    if [set(g) for g in state["param_groups"]] != [set(g) for g in wanted]:
        raise InputError(f"{source}: the optimizer in it is of another kind or has other groups; {remedy}")
    try:
        optimizer.load_state_dict(state)
    except ValueError as e:
        raise InputError(f"{source}: the optimizer in it has other parameters ({e}); {remedy}") from e
    for group, mine in zip(optimizer.param_groups, wanted, strict=True):
        for name in set(mine) - {"params", "lr"}:
            if group[name] != mine[name] and name not in ("fused", "foreach"):
                log.warning("%s of %s: %s, not %s as before", name, mine["name"], mine[name], group[name])
            group[name] = mine[name]
    _match_layout(optimizer)


def _parts(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    parts: dict[str, list[nn.Parameter]] = {"weights": [], "norms": [], "biases": []}
    seen: set[nn.Parameter] = set()
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad or parameter in seen:
                continue
            seen.add(parameter)
            if name.endswith("bias"):
                parts["biases"].append(parameter)
            else:
                parts["norms" if isinstance(module, NORMALISATION) else "weights"].append(parameter)
    return parts


def _write_lr(optimizer: Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_factor"]


def _scale_momentum(optimizer: Optimizer, factor: float) -> None:
    states = (optimizer.state.get(p) for group in optimizer.param_groups for p in group["params"])
    buffers = [s["momentum_buffer"] for s in states if s and s.get("momentum_buffer") is not None]
    if buffers:
        torch._foreach_mul_(buffers, factor)


def _match_layout(optimizer: Optimizer) -> None:
    # Fused updates walk through memory: a buffer in another memory format would be read in a wrong order.
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if (
                torch.is_tensor(value)
                and value.shape == parameter.shape
                and value.stride() != parameter.stride()
            ):
                state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
