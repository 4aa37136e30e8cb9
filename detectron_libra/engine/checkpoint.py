# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: all that a run needs to go on, in files that are whole or not there, and run no code."""

from __future__ import annotations

import logging
import pickle
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from detectron_libra import files
from detectron_libra.engine import optim
from detectron_libra.engine.diskspace import write_error
from detectron_libra.errors import InputError

log = logging.getLogger(__name__)

PATTERN = re.compile(r"model_iter(\d+)\.pt")
REQUIRED = ("model", "optimizer", "iteration", "rng", "metrics", "config", "class_names")
NAMES_SHOWN = 3
#: How pickle writes the key of ``versions`` that names this program.
MARK = pickle.BINUNICODE + len("detectron_libra").to_bytes(4, "little") + b"detectron_libra"
#: Bytes of a checkpoint without its tensors, at most.
LARGEST_INDEX = 50_000_000


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read."""

    path: Path
    state: dict[str, Any]

    @property
    def next_iteration(self) -> int:
        """The iteration that a resumed run begins with."""
        return self.state["iteration"] + 1


def path_of(folder: Path | str, iteration: int) -> Path:
    """The file of the checkpoint after ``iteration``, which is counted from 0, as Detectron does."""
    return Path(folder) / f"model_iter{iteration}.pt"


def save(path: Path | str, state: Mapping[str, Any]) -> None:
    """Writes a checkpoint; an interruption at any moment leaves an old file of that name as it was.

    Args:
        path: the file.
        state: tensors and plain types only, so that it loads without running code.

    Raises:
        RunError: the disk is full, or the folder cannot be written to.
    """
    try:
        files.atomic_write(path, lambda temporary: torch.save(dict(state), temporary))
    except (OSError, RuntimeError) as e:
        raise write_error(path, state, e) from e


def load(path: Path | str) -> dict[str, Any]:
    """Reads a checkpoint onto the CPU.

    Returns:
        The state as it was saved.

    Raises:
        InputError: missing, damaged, or not a checkpoint of this program. Nothing in the file is run.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint; check the path")
    reason = _damage(path)
    if reason is None:
        try:
            with path.open("rb") as file:  # of a path torch would look at the ending
                state = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as e:  # what a crafted or damaged file raises is not bounded
            reason = (
                f"{type(e).__name__}: {str(e).strip().splitlines()[0][:120]}" if str(e) else type(e).__name__
            )
        else:
            if isinstance(state, dict) and isinstance(state.get("model"), dict):
                return state
            reason = "no weights in it"
    raise InputError(f"{path}: damaged or not a checkpoint ({reason}); remove it, an older one is then used")


def is_checkpoint(path: Path | str) -> bool:
    """Whether a zip file is a checkpoint of this program; looks at the names in it and reads no tensor."""
    try:
        with zipfile.ZipFile(path) as archive:
            parts = [info for info in archive.infolist() if info.filename.endswith("/data.pkl")]
            return any(
                MARK in archive.read(info)
                for info in parts
                if info.compress_type == zipfile.ZIP_STORED and info.file_size < LARGEST_INDEX
            )
    except Exception:  # as in _damage; whoever reads it will say what is wrong
        return False


def latest(folder: Path | str) -> Checkpoint | None:
    """The newest checkpoint that can be read.

    Args:
        folder: of the run.

    Returns:
        None where there is no checkpoint.

    Raises:
        InputError: there are checkpoints, and none of them can be read.
    """
    found = _iterations(folder)
    reasons: list[str] = []
    for iteration in sorted(found, reverse=True):
        try:
            state = load(found[iteration])
            _require_complete(found[iteration], state)
        except InputError as e:
            log.warning("%s; trying the one before", e)
            reasons.append(str(e))
            continue
        return Checkpoint(found[iteration], state)
    if found:
        raise InputError(
            f"none of the checkpoints can be read ({len(found)} in the folder); the newest: {reasons[0]}; or start "
            "anew with --no-resume"
        )
    return None


def prune(folder: Path | str, *, newest: int, keep: int) -> None:
    """Deletes checkpoints that are not needed any more.

    Args:
        folder: of the run.
        newest: the iteration just saved; files of later ones are of a run that was given up, and go.
        keep: how many stay; 0: all.
    """
    found = _iterations(folder)
    mine = sorted(i for i in found if i <= newest)
    abandoned = sorted(i for i in found if i > newest)
    for iteration in abandoned:
        log.warning("%s is not of this run and is removed", found[iteration])
    for iteration in abandoned + (mine[:-keep] if keep > 0 else []):
        found[iteration].unlink(missing_ok=True)


def restore(
    checkpoint: Checkpoint, model: nn.Module, optimizer: Optimizer, *, class_names: Sequence[str] = ()
) -> int:
    """Puts a checkpoint into a model and an optimizer that were built as for the run that goes on.

    The random state is restored by the training loop, after the workers have drawn their seeds.

    Returns:
        The iteration to begin with.

    Raises:
        InputError: the checkpoint is of other classes, of another model, or incomplete.
    """
    _require_complete(checkpoint.path, checkpoint.state)
    before, now = tuple(checkpoint.state["class_names"]), tuple(class_names)
    if now and before and before != now:
        raise InputError(
            f"{checkpoint.path}: trained on {len(before)} classes ({_some(before)}), this run has {len(now)} "
            f"({_some(now)}); set TRAIN.WEIGHTS to it to fine-tune, or start anew with --no-resume"
        )
    _require_same_parameters(checkpoint, model)
    model.load_state_dict(checkpoint.state["model"])
    optim.load_state(optimizer, checkpoint.state["optimizer"], str(checkpoint.path))
    return checkpoint.next_iteration


def _iterations(folder: Path | str) -> dict[int, Path]:
    matches = ((PATTERN.fullmatch(p.name), p) for p in Path(folder).glob("model_iter*.pt"))
    return {int(match[1]): path for match, path in matches if match}


def _damage(path: Path) -> str | None:
    # PyTorch's own reader does not compare checksums: a flipped bit would become a weight.
    try:
        with zipfile.ZipFile(path) as archive:
            if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
                return "compressed parts, which we never write"
            broken = archive.testzip()
    except OSError as e:
        return e.strerror or str(e)
    except Exception as e:  # zipfile raises whatever its parser meets in a damaged header
        return str(e) or type(e).__name__
    return f"checksum of {broken}" if broken else None


def _require_complete(path: Path, state: Mapping[str, Any]) -> None:
    missing = [name for name in REQUIRED if name not in state]
    if missing:
        raise InputError(
            f"{path}: no {', '.join(missing)} in it, so a run cannot go on from it; use it as TRAIN.WEIGHTS"
        )


def _require_same_parameters(checkpoint: Checkpoint, model: nn.Module) -> None:
    theirs, mine = checkpoint.state["model"], model.state_dict()
    faults = [f"missing {name}" for name in mine if name not in theirs]
    faults += [f"unknown {name}" for name in theirs if name not in mine]
    faults += [
        f"{name} has shape {tuple(theirs[name].shape)}, not {tuple(mine[name].shape)}"
        for name in mine
        if name in theirs and theirs[name].shape != mine[name].shape
    ]
    if faults:
        raise InputError(
            f"{checkpoint.path}: of another model: {_some(faults)}; use the configuration of that run, "
            "or start anew with --no-resume"
        )


def _some(names: Sequence[str]) -> str:
    more = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
