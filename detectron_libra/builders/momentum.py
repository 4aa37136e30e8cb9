# SPDX-License-Identifier: Apache-2.0
"""The momentum of a training from our checkpoints into Detectron's form and back; both need the run's optimizer."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from detectron_libra.builders import session
from detectron_libra.builders.detector import build_detector
from detectron_libra.builders.solver import build_solver
from detectron_libra.builders.weights import put_into
from detectron_libra.config import Config
from detectron_libra.engine import optim
from detectron_libra.engine.saving import full_state
from detectron_libra.errors import InputError, UsageError
from detectron_libra.weights.contents import Weights
from detectron_libra.weights.momentum import from_torch_momentum, to_torch_momentum

BUFFER = "momentum_buffer"


def momentum_of_state(cfg: Config, state: Mapping[str, Any], source: str) -> dict[str, Tensor]:
    """Detectron's V of every trained parameter.

    Args:
        cfg: of the run, with the number of classes.
        state: of its checkpoint.
        source: its path, for messages.

    Returns:
        Parameter -> V; nothing where the optimizer is not SGD, or did no step.

    Raises:
        InputError: checkpoint and configuration do not belong together.
    """
    if cfg.SOLVER.OPTIMIZER != "sgd" or "optimizer" not in state:
        return {}
    model = build_detector(cfg, cfg.MODEL.NUM_CLASSES)
    optimizer, _ = build_solver(cfg, model)
    optim.load_state(optimizer, state["optimizer"], source)
    buffers = {
        name: optimizer.state[parameter][BUFFER]
        for name, parameter in model.named_parameters()
        if optimizer.state.get(parameter, {}).get(BUFFER) is not None
    }
    return from_torch_momentum(buffers, _lr(optimizer), bias_lr_factor=cfg.SOLVER.BIAS_LR_FACTOR)


def state_from_momentum(
    cfg: Config, weights: Weights, words: Mapping[str, Any]
) -> tuple[dict[str, Any], float]:
    """A checkpoint from weights with Detectron's momentum.

    Args:
        cfg: of the run, with the number of classes.
        words: ``iteration``, ``config``, ``class_names`` and ``settings`` of the checkpoint.

    Returns:
        (state, learning rate of that iteration). The random state is that of a run that begins with RNG_SEED.

    Raises:
        InputError: the weights are not of this model. UsageError: a run of Detectron that has another optimizer.
    """
    if cfg.SOLVER.OPTIMIZER != "sgd":
        raise UsageError(
            f"SOLVER.OPTIMIZER: {cfg.SOLVER.OPTIMIZER} has no momentum of Detectron's kind; set it to sgd"
        )
    session.seed(cfg.RNG_SEED)
    model = build_detector(cfg, cfg.MODEL.NUM_CLASSES)
    put_into(cfg, model, weights, training=False)
    optimizer, schedule = build_solver(cfg, model)
    lr = schedule.lr(words["iteration"])
    optim.set_lr(optimizer, lr)
    buffers = to_torch_momentum(weights.momentum, lr, bias_lr_factor=cfg.SOLVER.BIAS_LR_FACTOR)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        buffer = buffers.get(name)
        if buffer is not None and buffer.shape != parameter.shape:
            raise InputError(f"{weights.source}: the momentum of {name} has another shape than the parameter")
        # Where the file has none it is zero, as Detectron begins; the fused optimizer needs all or none.
        optimizer.state[parameter][BUFFER] = torch.zeros_like(parameter) if buffer is None else buffer
    return full_state(model, optimizer, {}, words), lr


def _lr(optimizer: Optimizer) -> float:
    group = optimizer.param_groups[0]
    return group["lr"] / group["lr_factor"]
