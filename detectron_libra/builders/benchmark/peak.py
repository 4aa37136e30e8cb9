# SPDX-License-Identifier: Apache-2.0
"""The most memory that a process held while it worked, beyond what it held before there was a model."""

from __future__ import annotations

import resource
from pathlib import Path

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
#: What Linux takes for: the highest resident size is that of now.
_RESET_PEAK = "5"
GPU = "most memory that torch's allocator had given out"
SINCE_RESET = "highest resident size during the turns, less that before the model was built"
SINCE_START = "highest resident size since the process began, less that before the model was built"


class Peak:
    """Make it before the model, call ``begin`` before the work, then read ``bytes``.

    Attributes:
        how: what ``bytes`` is.
    """

    def __init__(self, device: str) -> None:
        self.how = GPU if device == "cuda" else SINCE_START
        self._before = 0 if device == "cuda" else (_read("VmRSS") or _since_start())

    def begin(self) -> None:
        """Forget what was held until now, where that is possible."""
        if self.how == GPU:
            torch.cuda.reset_peak_memory_stats()
            return
        try:
            _CLEAR.write_text(_RESET_PEAK)
            self.how = SINCE_RESET
        except OSError:
            self.how = SINCE_START

    @property
    def bytes(self) -> int:
        """As ``how`` says."""
        if self.how == GPU:
            return torch.cuda.max_memory_allocated()
        highest = _read("VmHWM") if self.how == SINCE_RESET else None
        return (highest or _since_start()) - self._before


def _read(field: str) -> int | None:
    """Bytes that Linux gives for this process; None elsewhere."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith(f"{field}:")]
    return int(found[0]) * 1024 if found else None


def _since_start() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
