# SPDX-License-Identifier: Apache-2.0
"""Weights on their own, with a few words about them: .safetensors out; it and our checkpoints in."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from detectron_libra import files
from detectron_libra.engine import checkpoint
from detectron_libra.engine.diskspace import write_error
from detectron_libra.errors import InputError

#: How a file of torch.save begins.
ZIP = b"PK\x03\x04"


def save_safetensors(
    path: Path | str, model_state: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> None:
    """Writes weights so that an interruption leaves an old file as it was.

    Args:
        path: the file.
        model_state: of any device and memory format; stored contiguous.
        metadata: texts that go with them.

    Raises:
        RunError: the disk is full, or the folder cannot be written to.
    """
    # Copies: safetensors refuses tensors that share memory, and stores one memory format.
    tensors = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in model_state.items()
    }
    try:
        files.atomic_write(path, lambda temporary: save_file(tensors, temporary, metadata=dict(metadata)))
    except Exception as e:  # safetensors has an error class of its own, derived from Exception
        raise write_error(path, tensors, e) from e


def load_weights(path: str | os.PathLike) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Reads weights onto the CPU.

    Args:
        path: .safetensors, or a checkpoint of ours (.pt); its content says which.

    Returns:
        (name to tensor, metadata). Metadata of our files: ``format``, ``config`` (YAML), ``class_names`` (a
        JSON list), ``iteration`` and ``settings`` (keys that the weights need, a JSON object).

    Raises:
        InputError: missing, damaged, or of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; check the path of the weights")
    with path.open("rb") as file:
        is_zip = file.read(len(ZIP)) == ZIP
    if is_zip:
        state = checkpoint.load(path)
        return state["model"], metadata_of(state)
    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except Exception as e:  # as above
        raise InputError(f"{path}: damaged or not a .safetensors file ({str(e).splitlines()[0]})") from e


def metadata_of(state: Mapping) -> dict[str, str]:
    """The texts of a checkpoint's state that go with its weights."""
    return {
        "format": "detectron_libra",
        "config": state.get("config", ""),
        "class_names": json.dumps(list(state.get("class_names", ()))),
        "iteration": str(state.get("iteration", "")),
        "settings": json.dumps(state.get("settings", {})),
    }
