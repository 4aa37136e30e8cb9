# SPDX-License-Identifier: Apache-2.0
"""Going back: a run whose numbers are not finite any more begins again at a checkpoint, with a lower rate."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from pathlib import Path

from torch import nn
from torch.optim import Optimizer

from detectron_libra.engine import checkpoint
from detectron_libra.engine.guard import NonFinite
from detectron_libra.engine.saving import full_state

log = logging.getLogger(__name__)

#: Learning rate after a return over that before; repeated as it was, the run would end at the same step.
FACTOR = 0.5
#: Key of a checkpoint's state: what the schedule is multiplied by.
LR_FACTOR = "lr_factor"


def beginning(model: nn.Module, optimizer: Optimizer, class_names: Sequence[str]) -> checkpoint.Checkpoint:
    """The state before the first step, kept in memory until there is a checkpoint; a copy."""
    words = {"iteration": -1, "config": "", "class_names": list(class_names), "settings": {}}
    state = full_state(model, optimizer, {}, words)
    return checkpoint.Checkpoint(Path("the beginning of the run"), copy.deepcopy(state))


def lr_factor(found: checkpoint.Checkpoint | None) -> float:
    """What the schedule is multiplied by in a run that begins with a checkpoint."""
    return float(found.state.get(LR_FACTOR, 1.0)) if found else 1.0


def go_back(
    error: NonFinite, current: checkpoint.Checkpoint, folder: Path | str, *, limit: int
) -> checkpoint.Checkpoint:
    """The checkpoint to go on from after ``error``.

    Args:
        error: that ended the run.
        current: what this part of the run began with.
        folder: of the run, whose newest checkpoint is taken; ``current`` where there is none.
        limit: returns that a run may make, counted over all of it.

    Returns:
        A checkpoint whose learning rate is half of the one that failed.

    Raises:
        NonFinite: ``error`` again, once the limit is reached.
    """
    factor = lr_factor(current) * FACTOR
    if factor < FACTOR**limit:
        raise NonFinite(f"{error}; {limit} returns were made, as TRAIN.NONFINITE_LIMIT allows") from error
    found = checkpoint.latest(folder) or current
    log.warning("%s", error)
    log.warning(
        "back to %s: on with iteration %d, learning rates times %g", found.path, found.next_iteration, factor
    )
    return checkpoint.Checkpoint(found.path, {**found.state, LR_FACTOR: factor})
