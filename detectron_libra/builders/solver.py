# SPDX-License-Identifier: Apache-2.0
"""Configuration to optimizer and learning rate."""

import logging

from torch import nn
from torch.optim import Optimizer

from detectron_libra.config.schema import Config
from detectron_libra.engine.optim import build_optimizer
from detectron_libra.engine.schedule import LearningRate

log = logging.getLogger(__name__)


def base_lr(cfg: Config) -> float:
    """SOLVER.BASE_LR, scaled to the images per step where SOLVER.REFERENCE_BATCH is given."""
    s = cfg.SOLVER
    if not s.REFERENCE_BATCH:
        return s.BASE_LR
    lr = s.BASE_LR * cfg.TRAIN.IMS_PER_BATCH / s.REFERENCE_BATCH
    if lr != s.BASE_LR:
        log.info(
            "learning rate %g instead of %g: %d images per step, SOLVER.REFERENCE_BATCH is %d",
            lr,
            s.BASE_LR,
            cfg.TRAIN.IMS_PER_BATCH,
            s.REFERENCE_BATCH,
        )
    return lr


def build_schedule(cfg: Config) -> LearningRate:
    """The learning rate of every iteration."""
    s = cfg.SOLVER
    return LearningRate(
        base_lr=base_lr(cfg),
        policy=s.LR_POLICY,
        gamma=s.GAMMA,
        step_size=s.STEP_SIZE,
        steps=tuple(s.STEPS),
        lrs=tuple(s.LRS),
        max_iter=s.MAX_ITER,
        warm_up_iters=s.WARM_UP_ITERS,
        warm_up_factor=s.WARM_UP_FACTOR,
        warm_up_method=s.WARM_UP_METHOD,
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
