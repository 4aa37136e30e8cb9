# SPDX-License-Identifier: Apache-2.0
"""Configuration to optimizer and learning rate."""

import logging
import shlex

from torch import nn
from torch.optim import Optimizer

from detectron_libra.builders.rules import geometry_of
from detectron_libra.config.schema import Config
from detectron_libra.engine.optim import build_optimizer
from detectron_libra.engine.schedule import LearningRate

log = logging.getLogger(__name__)


def lr_factor(cfg: Config) -> float:
    """What every learning rate is multiplied by: images per step over SOLVER.REFERENCE_BATCH, where that is given."""
    reference = cfg.SOLVER.REFERENCE_BATCH
    return cfg.TRAIN.IMS_PER_BATCH / reference if reference else 1.0


def build_schedule(cfg: Config) -> LearningRate:
    """The learning rate of every iteration."""
    s, factor = cfg.SOLVER, lr_factor(cfg)
    if factor != 1:
        log.info(
            "learning rates are multiplied by %g: %d images per step, SOLVER.REFERENCE_BATCH is %d",
            factor,
            cfg.TRAIN.IMS_PER_BATCH,
            s.REFERENCE_BATCH,
        )
    return LearningRate(
        base_lr=s.BASE_LR * factor,
        policy=s.LR_POLICY,
        gamma=s.GAMMA,
        step_size=s.STEP_SIZE,
        steps=tuple(s.STEPS),
        lrs=tuple(lr * factor for lr in s.LRS),
        max_iter=s.MAX_ITER,
        warm_up_iters=s.WARM_UP_ITERS,
        warm_up_factor=s.WARM_UP_FACTOR,
        warm_up_method=s.WARM_UP_METHOD,
    )


def larger_steps(cfg: Config) -> dict[str, object]:
    """Keys and values that make a step of this one process as large as one of NUM_GPUS processes."""
    processes, train = cfg.NUM_GPUS, cfg.TRAIN
    keys: dict[str, object] = {
        "TRAIN.IMS_PER_BATCH": train.IMS_PER_BATCH * processes,
        "TRAIN.SNAPSHOT_ITERS": max(1, train.SNAPSHOT_ITERS // processes),
    }
    if cfg.RPN.RPN_ON and cfg.FPN.FPN_ON and geometry_of(cfg).rules == "detectron":
        # the last cut of proposals is over the images of a process together
        keys["TRAIN.RPN_POST_NMS_TOP_N"] = train.RPN_POST_NMS_TOP_N * processes
    return keys


def longer_schedule(cfg: Config) -> dict[str, object]:
    """Keys and values with which small steps see as many images as NUM_GPUS processes do. Source: Detectron's
    GETTING_STARTED.md: rates divided and iterations multiplied by the same number."""
    s, processes = cfg.SOLVER, cfg.NUM_GPUS
    keys: dict[str, object] = {"SOLVER.MAX_ITER": s.MAX_ITER * processes}
    if s.LR_POLICY == "step":
        keys["SOLVER.STEP_SIZE"] = s.STEP_SIZE * processes
    elif s.LR_POLICY.startswith("steps_with"):
        keys["SOLVER.STEPS"] = [step * processes for step in s.STEPS]
    if s.REFERENCE_BATCH:
        return keys
    if s.LR_POLICY == "steps_with_lrs":
        return keys | {"SOLVER.LRS": [lr / processes for lr in s.LRS]}
    return keys | {"SOLVER.BASE_LR": s.BASE_LR / processes}


def as_options(keys: dict[str, object]) -> str:
    """``KEY VALUE ...`` as a shell reads it."""
    return " ".join(f"{name} {shlex.quote(str(value))}" for name, value in keys.items())


def warn_of_missing_processes(cfg: Config) -> None:
    """Tell where the schedule is for several processes, and both ways to keep to it, ready for the command line."""
    if cfg.NUM_GPUS < 2:
        return
    images = cfg.TRAIN.IMS_PER_BATCH
    log.warning(
        "NUM_GPUS is %d, but this run is one process: its steps have %d images, and the schedule was made for %d. "
        "Add NUM_GPUS 1 and either %s (the same steps, where the memory suffices) or %s (as many images in small "
        "steps); as it is, the run sees 1/%d of the images%s",
        cfg.NUM_GPUS,
        images,
        images * cfg.NUM_GPUS,
        as_options(larger_steps(cfg)),
        as_options(longer_schedule(cfg)),
        cfg.NUM_GPUS,
        "" if cfg.SOLVER.REFERENCE_BATCH else f" at a learning rate for {images * cfg.NUM_GPUS} a step",
    )


def build_solver(cfg: Config, model: nn.Module) -> tuple[Optimizer, LearningRate]:
    """Optimizer of the model's trained parameters, and its schedule."""
    s = cfg.SOLVER
    schedule = build_schedule(cfg)
    optimizer = build_optimizer(
        model,
        kind=s.OPTIMIZER,
        lr=schedule.lr(0),
        momentum=s.MOMENTUM,
        weight_decay=s.WEIGHT_DECAY,
        weight_decay_gn=s.WEIGHT_DECAY_GN,
        bias_lr_factor=s.BIAS_LR_FACTOR,
        bias_decay=s.BIAS_DECAY,
    )
    return optimizer, schedule
