# SPDX-License-Identifier: Apache-2.0
"""One process per folder."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from detectron_libra.errors import UsageError

log = logging.getLogger(__name__)

NAME = ".lock"


class FolderInUse(UsageError):
    """Another process holds a folder.

    Attributes:
        holder: its number, as text; "unknown" where it had not written it yet.
    """

    def __init__(self, *lines: str, holder: str = "unknown") -> None:
        super().__init__(*lines)
        self.holder = holder


@contextmanager
def locked(folder: Path | str, *, wait: bool = False) -> Iterator[Path]:
    """Holds the folder for this process; the kernel lets go of it however the process ends.

    Args:
        folder: exists and is writable.
        wait: until another process lets go of it, instead of raising FolderInUse.

    Raises:
        FolderInUse: another process holds it. UsageError: its lock cannot be opened.
    """
    path = Path(folder) / NAME
    try:
        file = open(path, "a+")  # noqa: SIM115  closed below
    except OSError as e:
        raise UsageError(f"{path}: cannot be opened ({e.strerror}); set OUTPUT_DIR to another folder") from e
    with file:
        try:
            # A record lock: workers do not inherit it, and one may outlive a killed run.
            fcntl.lockf(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError as e:
            if e.errno in (errno.EACCES, errno.EAGAIN):
                holder = path.read_text().strip() or "unknown"
                text = f"{path.parent}: in use by process {holder}; wait for it, or set OUTPUT_DIR to another folder"
                raise FolderInUse(text, holder=holder) from e
            log.warning("%s: this file system has no locks (%s); start one run in it only", path, e.strerror)
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield path
