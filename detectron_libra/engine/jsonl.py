# SPDX-License-Identifier: Apache-2.0
"""metrics.jsonl: one JSON object a line, which reads as one run however often the run was interrupted."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detectron_libra import files

log = logging.getLogger(__name__)


class JsonLines:
    """A file that grows line by line. What cannot be written is told once, and does not stop the run.

    Args:
        path: the file.
        start_iteration: lines of this iteration and later ones are dropped: they are of a run that was cut
            off after its last checkpoint, or given up.
    """

    def __init__(self, path: Path | str, start_iteration: int) -> None:
        self.path = Path(path)
        self._failed = False
        try:
            if self.path.is_file():
                kept = [line for line in self.path.read_text().splitlines() if _before(line, start_iteration)]
                files.atomic_write(self.path, "".join(line + "\n" for line in kept).encode())
        except OSError as e:
            self._warn(e)

    def append(self, record: Mapping[str, Any]) -> None:
        """Adds a line; numbers that JSON does not have (NaN, infinity) become null."""
        try:
            with open(self.path, "a") as file:
                file.write(json.dumps(_plain(record)) + "\n")
        except OSError as e:
            self._warn(e)

    def _warn(self, error: OSError) -> None:
        if not self._failed:
            log.warning("%s: cannot be written (%s); training goes on without it", self.path, error.strerror)
        self._failed = True


def _before(line: str, start_iteration: int) -> bool:
    try:
        return json.loads(line)["iter"] < start_iteration
    except (ValueError, KeyError, TypeError):
        return False


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
