# SPDX-License-Identifier: Apache-2.0
"""What a run writes into its folder: checkpoints on the way, the weights at the end."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

import detectron_libra
from detectron_libra.engine import checkpoint, rng
from detectron_libra.engine.metrics import Metrics
from detectron_libra.engine.weights_file import metadata_of, save_safetensors

FINAL = "model_final.safetensors"


def full_state(
    model: nn.Module, optimizer: Optimizer, metrics: Mapping[str, Any], words: Mapping[str, Any]
) -> dict[str, Any]:
    """What a checkpoint holds.

    Args:
        model, optimizer: after an iteration.
        metrics: state of the window of medians, see ``metrics.Window``.
        words: ``iteration``, ``config``, ``class_names``, ``settings``.
    """
    return {
        **words,
        "model": dict(model.state_dict()),
        "optimizer": optimizer.state_dict(),
        "rng": rng.get_state(),
        "metrics": dict(metrics),
        "versions": {
            "detectron_libra": detectron_libra.__version__,
            "torch": str(torch.__version__),
            "python": platform.python_version(),
        },
    }


@dataclass(frozen=True)
class Saver:
    """Writes the state of a run.

    Attributes:
        folder: exists.
        model, optimizer, metrics: of the run.
        keep: newest checkpoints that stay; 0: all.
        config_text, class_names, settings: stored beside the weights.
        on_checkpoint: given the path and the iteration of each checkpoint.
        lr_factor: what the schedule is multiplied by, see ``rollback.py``.
    """

    folder: Path
    model: nn.Module
    optimizer: Optimizer
    metrics: Metrics
    keep: int
    config_text: str
    class_names: Sequence[str]
    settings: Mapping[str, Any]
    on_checkpoint: Callable[[Path, int], None] | None
    lr_factor: float = 1.0

    def checkpoint(self, iteration: int) -> Path:
        """Writes the checkpoint after ``iteration``, and removes what is not needed any more.

        Raises:
            RunError: it cannot be written; those before are as they were.
        """
        path = checkpoint.path_of(self.folder, iteration)
        checkpoint.save(path, self._state(iteration))
        checkpoint.prune(self.folder, newest=iteration, keep=self.keep)
        # Final weights beside a checkpoint of a run that goes on are of a run that was given up.
        (self.folder / FINAL).unlink(missing_ok=True)
        if self.on_checkpoint:
            self.on_checkpoint(path, iteration)
        return path

    def final(self, iteration: int) -> Path:
        """Writes the weights after the last iteration.

        Raises:
            RunError: they cannot be written.
        """
        path = self.folder / FINAL
        save_safetensors(path, self.model.state_dict(), metadata_of(self._words(iteration)))
        return path

    def _state(self, iteration: int) -> dict[str, Any]:
        words = self._words(iteration) | {"lr_factor": self.lr_factor}
        return full_state(self.model, self.optimizer, self.metrics.window.state(), words)

    def _words(self, iteration: int) -> dict[str, Any]:
        return {
            "iteration": iteration,
            "config": self.config_text,
            "class_names": list(self.class_names),
            "settings": dict(self.settings),
        }
