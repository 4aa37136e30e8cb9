# SPDX-License-Identifier: Apache-2.0
"""Result files appear whole or not at all, and a disk that refuses them is told in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..errors import RunError
from ..files import atomic_write


def write_whole(file: Path | str, content: bytes | Callable[[Path], object]) -> Path:
    """Writes ``content`` and makes the folder where it is missing.

    Args:
        file: where it ends up.
        content: the bytes, or a function that writes the file at the path it is given.

    Returns:
        The path of ``file``.

    Raises:
        RunError: the file cannot be written; names it and its size, where that is known.
    """
    file = Path(file)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(file, content)
    except OSError as error:
        what = f" {len(content)} bytes" if isinstance(content, bytes) else ""
        remedy = "make room or choose another OUTPUT_DIR"
        raise RunError(f"{file}: cannot write{what}: {error.strerror}; {remedy}") from error
    return file
