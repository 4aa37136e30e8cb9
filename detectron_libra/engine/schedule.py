# SPDX-License-Identifier: Apache-2.0
"""The learning rate as a pure function of the iteration, so that a resumed run needs no state of it."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass

from detectron_libra.errors import UsageError

POLICIES = ("step", "steps_with_decay", "steps_with_lrs", "cosine_decay", "cosine", "exp_decay")
WARM_UPS = ("constant", "linear")


@dataclass(frozen=True)
class LearningRate:
    """Detectron's policies and warm-up.

    Attributes:
        base_lr: learning rate after the warm-up, before the first decay.
        policy: one of POLICIES; ``cosine`` is another word for ``cosine_decay``.
        gamma: factor of each step; ``exp_decay``: of the whole run.
        step_size: iterations between steps (``step``).
        steps: iterations at which a step begins, the first is 0 (``steps_with_*``).
        lrs: learning rate of each step (``steps_with_lrs``).
        max_iter: iterations of the run.
        warm_up_iters, warm_up_factor, warm_up_method: ``constant``: this factor; ``linear``: from it up to 1.

    Raises:
        UsageError: the fields do not go together.

    Source: Detectron's utils/lr_policy.py.
    """

    base_lr: float
    policy: str = "step"
    gamma: float = 0.1
    step_size: int = 30000
    steps: tuple[int, ...] = ()
    lrs: tuple[float, ...] = ()
    max_iter: int = 40000
    warm_up_iters: int = 0
    warm_up_factor: float = 1.0 / 3.0
    warm_up_method: str = "linear"

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise UsageError(f"SOLVER.LR_POLICY: {self.policy!r} is unknown; use {', '.join(POLICIES)}")
        if self.warm_up_method not in WARM_UPS:
            raise UsageError(
                f"SOLVER.WARM_UP_METHOD: {self.warm_up_method!r} is unknown; use one of {', '.join(WARM_UPS)}"
            )
        if self.policy.startswith("steps_with"):
            _check_steps(tuple(self.steps))
        if self.policy == "steps_with_lrs" and len(self.lrs) != len(self.steps):
            raise UsageError(
                f"SOLVER.LRS: {len(self.lrs)} rates for {len(self.steps)} SOLVER.STEPS; give one for each"
            )

    def lr(self, iteration: int) -> float:
        """The learning rate of an iteration, counted from 0."""
        return self._decayed(iteration) * self._warm_up(iteration)

    def _decayed(self, iteration: int) -> float:
        done = iteration / self.max_iter
        if self.policy == "step":
            return self.base_lr * self.gamma ** (iteration // self.step_size)
        if self.policy == "steps_with_decay":
            return self.base_lr * self.gamma ** self._step(iteration)
        if self.policy == "steps_with_lrs":
            return self.lrs[self._step(iteration)]
        if self.policy == "exp_decay":
            return self.base_lr * math.exp(done * math.log(self.gamma))
        return self.base_lr * 0.5 * (math.cos(math.pi * done) + 1.0)

    def _step(self, iteration: int) -> int:
        return bisect_right(self.steps, iteration) - 1

    def _warm_up(self, iteration: int) -> float:
        if iteration >= self.warm_up_iters:
            return 1.0
        if self.warm_up_method == "constant":
            return self.warm_up_factor
        done = iteration / self.warm_up_iters
        return self.warm_up_factor * (1.0 - done) + done


def _check_steps(steps: tuple[int, ...]) -> None:
    if not steps or steps[0] != 0:
        raise UsageError(f"SOLVER.STEPS: {list(steps)} does not begin with 0; put 0 in front")
    if list(steps) != sorted(set(steps)):
        raise UsageError(f"SOLVER.STEPS: {list(steps)} does not grow; sort it")
