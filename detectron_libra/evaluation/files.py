# SPDX-License-Identifier: Apache-2.0
"""Result files appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from ..errors import RunError


def write_whole(file: Path | str, content: bytes) -> Path:
    """Writes ``content`` beside ``file``, then renames: a reader, or a full disk, never leaves half a file.

    Returns:
        The path of ``file``.

    Raises:
        RunError: the file cannot be written; names it and its size.
    """
    file = Path(file)
    part = file.with_name(f".{file.name}.tmp.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(file)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        remedy = "make room or choose another OUTPUT_DIR"
        raise RunError(f"{file}: cannot write {len(content)} bytes: {error.strerror}; {remedy}") from error
    return file
