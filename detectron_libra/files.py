# SPDX-License-Identifier: Apache-2.0
"""Files that are whole or not there: written beside their place, flushed to the disk, then renamed."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from detectron_libra.errors import UsageError


def atomic_write(path: Path | str, content: bytes | Callable[[Path], object]) -> None:
    """Writes a file so that a crash at any moment leaves the old content or the new one.

    Args:
        path: where it ends up.
        content: the bytes, or a function that writes the file at the path it is given.

    Raises:
        OSError: and whatever ``content`` raises; nothing is left behind, and an old file stays as it was.
    """
    path = Path(path)
    temporary = path.with_name(f"{path.name}.tmp{os.getpid()}")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        if callable(content):
            content(temporary)
        else:
            temporary.write_bytes(content)
        temporary.chmod(mode)  # a writer may have put a file of its own, private one in the place
        _flush_to_disk(temporary, os.O_RDWR)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _flush_to_disk(path.parent, os.O_RDONLY)


def remove_leftovers(folder: Path | str) -> int:
    """Deletes the temporary files of a run that was killed while it wrote; returns how many."""
    leftovers = [p for p in Path(folder).glob("*.tmp*") if p.is_file()]
    for path in leftovers:
        path.unlink(missing_ok=True)
    return len(leftovers)


def native_path(path: str) -> str:
    """A path in the bytes of UTF-8, where the locale would spell its letters otherwise or not at all (``LC_ALL=C``)."""
    if sys.getfilesystemencoding().lower() in ("utf-8", "utf8"):
        return path
    try:
        return os.fsdecode(path.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:
        return path


def ensure_writable(folder: Path | str) -> Path:
    """Makes the folder where it is missing, and writes a test file in it.

    Returns:
        The folder.

    Raises:
        UsageError: it cannot be made or written to.
    """
    folder = Path(folder)
    probe = folder / f".probe.tmp{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"x" * 4096)
        probe.unlink()
    except OSError as e:
        with suppress(OSError):
            probe.unlink()
        raise UsageError(
            f"{folder}: cannot be written to ({e.strerror}); set OUTPUT_DIR to another folder"
        ) from e
    return folder


def _flush_to_disk(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
