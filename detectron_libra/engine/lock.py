# SPDX-License-Identifier: Apache-2.0
"""One run per output folder."""

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


@contextmanager
def locked(folder: Path | str) -> Iterator[Path]:
    """Holds the folder for this process; the kernel lets go of it however the process ends.

    Args:
        folder: exists and is writable.

    Raises:
        UsageError: another process holds it.
    """
    path = Path(folder) / NAME
    try:
        file = open(path, "a+")  # noqa: SIM115  closed below
    except OSError as e:
        raise UsageError(f"{path}: cannot be opened ({e.strerror}); set OUTPUT_DIR to another folder") from e
    with file:
        try:
            # A record lock: workers do not inherit it, and one may outlive a killed run.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            if e.errno in (errno.EACCES, errno.EAGAIN):
                raise UsageError(_in_use(path)) from e
            log.warning("%s: this file system has no locks (%s); start one run in it only", path, e.strerror)
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield path


def _in_use(path: Path) -> str:
    holder = path.read_text().strip() or "unknown"
    return f"{path.parent}: in use by process {holder}; wait for it, or set OUTPUT_DIR to another folder"
