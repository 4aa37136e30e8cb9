# SPDX-License-Identifier: Apache-2.0
"""What to say when a large file could not be written."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from detectron_libra.errors import RunError


def write_error(path: Path | str, content: Mapping[str, Any], cause: Exception) -> RunError:
    """The error for a file that could not be written.

    Args:
        path: the file.
        content: what it was to hold; tensors in nested dicts and sequences are counted.
        cause: what the writer raised.

    Returns:
        One line with the path, the size in bytes, the room that is left, and the remedy.
    """
    needed = sum(t.numel() * t.element_size() for t in _tensors(content))
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
