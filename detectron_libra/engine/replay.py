# SPDX-License-Identifier: Apache-2.0
"""A batch that can be run again: with the weights, the random state and the words of the step that it was of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from detectron_libra.engine import checkpoint, rng
from detectron_libra.engine.guard import Step
from detectron_libra.errors import InputError
from detectron_libra.structures import Batch, ImageMeta, Proposals, Targets

REQUIRED = ("batch", "losses", "grad_norm", "lr", "iteration", "files", "rng", "config")


@dataclass(frozen=True)
class Replay:
    """A file that was read.

    Attributes:
        path: of the file.
        state: what it holds: ``model``, ``rng``, ``config`` and so on, see ``content``.
        batch: as it was given to the model, on the CPU.
    """

    path: Path
    state: Mapping[str, Any]
    batch: Batch


def path_of(folder: Path | str, iteration: int) -> Path:
    """The file for the step ``iteration``, counted from 0."""
    return Path(folder) / f"nonfinite_iter{iteration}.pt"


def content(step: Step, model: nn.Module, config_text: str) -> dict[str, Any]:
    """What a file holds: tensors on the CPU and plain types, so that it loads without running code.

    Args:
        step: that is to be repeated.
        model: with the weights that the step had.
        config_text: of the run, YAML.
    """
    return {
        "iteration": step.iteration,
        "lr": step.lr,
        "losses": {name: value.item() for name, value in step.losses.items()},
        "grad_norm": step.grad_norm.item(),
        "files": [meta.file for meta in step.batch.metas],
        "batch": _packed(step.batch.to("cpu")),
        "model": {name: value.detach().cpu() for name, value in model.state_dict().items()},
        "rng": dict(step.rng),
        "config": config_text,
    }


def load(path: Path | str) -> Replay:
    """Reads a file.

    Raises:
        InputError: missing, damaged, or not of this kind. Nothing in the file is run.
    """
    state = checkpoint.load(path)
    missing = [name for name in REQUIRED if name not in state]
    if missing:
        raise InputError(
            f"{path}: no {', '.join(missing)} in it; give a nonfinite_iter<N>.pt of a run's folder"
        )
    try:
        numbers = [state["iteration"], state["lr"], state["grad_norm"], *state["losses"].values()]
        if not all(isinstance(n, (int, float)) for n in numbers):
            raise TypeError("iteration, lr, grad_norm and losses must be numbers")
        return Replay(Path(path), state, _unpacked(state["batch"]))
    except (KeyError, TypeError, AttributeError) as e:
        raise InputError(f"{path}: the step in it cannot be used ({type(e).__name__}: {e})") from e


def restore_random_state(state: Mapping[str, Any]) -> None:
    """Draws the same random numbers as the step did, where the file tells."""
    if state["rng"]:
        rng.set_state(dict(state["rng"]))


def _packed(batch: Batch) -> dict[str, Any]:
    return {
        "images": batch.images,
        "sizes": batch.sizes,
        "scales": batch.scales,
        "targets": _tensors(batch.targets),
        "proposals": _tensors(batch.proposals),
        "metas": [asdict(meta) for meta in batch.metas],
    }


def _tensors(part: Targets | Proposals | None) -> dict[str, Tensor] | None:
    return None if part is None else {f.name: getattr(part, f.name) for f in fields(part)}


def _unpacked(packed: Mapping[str, Any]) -> Batch:
    if not all(torch.is_tensor(packed[name]) for name in ("images", "sizes", "scales")):
        raise TypeError("images, sizes and scales must be tensors")
    return Batch(
        packed["images"],
        packed["sizes"],
        None if packed["targets"] is None else Targets(**packed["targets"]),
        tuple(ImageMeta(**meta) for meta in packed["metas"]),
        packed["scales"],
        None if packed["proposals"] is None else Proposals(**packed["proposals"]),
    )
