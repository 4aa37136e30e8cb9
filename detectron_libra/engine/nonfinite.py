# SPDX-License-Identifier: Apache-2.0
"""What a run does at a step that is not finite: it writes the batch down, and stops or leaves the step out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from detectron_libra.engine import checkpoint, replay
from detectron_libra.engine.guard import NonFinite, Step, describe
from detectron_libra.errors import RunError

log = logging.getLogger(__name__)

POLICIES = ("stop", "skip", "rollback")
#: Batches that one run writes down; each comes with the weights.
WRITTEN = 4


class OnNonfinite:
    """Called with each step that is not finite.

    Args:
        policy: one of POLICIES. ``skip`` leaves the step out: weights, momentum and running statistics stay as they
            were. With the two others the run ends; ``rollback.py`` starts it again.
        limit: steps in a row that ``skip`` leaves out.
        folder: of the run, where batches are written.
        content: given a step, what its file is to hold.
        told: given the iteration and what is known of a step that was left out.
    """

    def __init__(
        self,
        policy: str,
        limit: int,
        folder: Path,
        content: Callable[[Step], Mapping[str, Any]],
        told: Callable[[int, Mapping[str, Any]], None],
    ) -> None:
        self._policy, self._limit, self._folder = policy, limit, folder
        self._content, self._told = content, told
        self._count = self._in_a_row = 0
        self._last = -2

    def __call__(self, step: Step) -> None:
        """Returns where the run goes on.

        Raises:
            NonFinite: it does not.
        """
        self._count += 1
        self._in_a_row = self._in_a_row + 1 if step.iteration == self._last + 1 else 1
        self._last = step.iteration
        text = describe(step) + (self._write(step) if self._count <= WRITTEN else "")
        if self._policy != "skip":
            raise NonFinite(text)
        if self._in_a_row > self._limit:
            raise NonFinite(
                f"{text}; {self._limit} steps before were left out, as TRAIN.NONFINITE_LIMIT allows"
            )
        log.warning("step left out, number %d of this run: %s", self._count, text)
        losses = {name: value.item() for name, value in step.losses.items()}
        self._told(step.iteration, {"skipped": self._count, "losses": losses})

    def _write(self, step: Step) -> str:
        """What the message says about the file; a disk that refuses it changes nothing else."""
        path = replay.path_of(self._folder, step.iteration)
        try:
            checkpoint.save(path, self._content(step))
        except RunError as e:
            log.warning("the batch is not kept: %s", e)
            return ""
        return f"; the batch is kept: python tools/replay_batch.py {path}"
