# SPDX-License-Identifier: Apache-2.0
"""Room for large files: asked for before the first step, and what to say when one could not be written."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from detectron_libra.errors import RunError

#: A full disk, a quota, a limit on the size of a file.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def checkpoint_bytes(model_state: Mapping[str, Any], optimizer: Optimizer) -> int:
    """Bytes that a checkpoint takes at least: weights, and what the optimizer keeps for each trained one."""
    buffers = 2 if "betas" in optimizer.defaults else int(bool(optimizer.defaults.get("momentum")))
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    return size_of(model_state) + buffers * size_of(trained)


def require_room(folder: Path | str, *, largest: int, total: int) -> None:
    """Refuses to begin where it is known that the disk will not take what is to be written.

    Args:
        folder: exists and is writable.
        largest: bytes of the largest file; they are reserved for a moment, which asks limits and quotas too.
        total: bytes of all files that will lie there at once, over those that are there.

    Raises:
        RunError: there is no room.
    """
    remedy = "make room, set OUTPUT_DIR to another disk or lower TRAIN.CHECKPOINTS_KEPT"
    probe = Path(folder) / f".room.tmp{os.getpid()}"
    try:
        with open(probe, "wb") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, largest)
    except OSError as e:
        if e.errno in NO_ROOM:
            raise RunError(
                f"{folder}: no room for a checkpoint of {largest} bytes ({e.strerror}); {remedy}"
            ) from e
    finally:
        probe.unlink(missing_ok=True)
    free = shutil.disk_usage(folder).free
    if free < total:
        raise RunError(f"{folder}: the checkpoints take {total} bytes, and {free} are free; {remedy}")


def size_of(value: Any) -> int:
    """Bytes of the tensors in nested dicts and sequences."""
    return sum(t.numel() * t.element_size() for t in _tensors(value))


def write_error(path: Path | str, content: Mapping[str, Any], cause: Exception) -> RunError:
    """The error for a file that could not be written.

    Args:
        path: the file.
        content: what it was to hold; tensors in nested dicts and sequences are counted.
        cause: what the writer raised.

    Returns:
        One line with the path, the size in bytes, the room that is left, and the remedy.
    """
    needed = size_of(content)
    try:
        room = f"{shutil.disk_usage(Path(path).parent).free} bytes free"
    except OSError:
        room = "free space unknown"
    # The writers of PyTorch and safetensors do not hand on the number of the system's error.
    reason = getattr(cause, "strerror", None) or f"disk full or quota? {str(cause).strip().splitlines()[0]}"
    return RunError(
        f"{path}: cannot be written, {needed} bytes with {room} ({reason}); "
        "files written before are intact: make room and resume"
    )


def _tensors(value: Any) -> Iterator[Tensor]:
    if torch.is_tensor(value):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)
