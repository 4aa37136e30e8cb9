# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C, `kill`, a closed terminal: the first asks the loop to stop, a second Ctrl-C or `kill` ends the process."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

#: When its terminal closes, a process gets SIGHUP: from the kernel, and once more from a shell. Windows has none.
HANGUP = getattr(signal, "SIGHUP", None)
SIGNALS = tuple(s for s in (signal.SIGINT, signal.SIGTERM, HANGUP) if s is not None)
SIGNAL_EXIT_BASE = 128


class StopFlag:
    """Set by SIGINT, SIGTERM or SIGHUP while the ``with`` block runs; under ``nohup`` SIGHUP stays ignored.

    Attributes:
        signal: the signal that came, or None.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __bool__(self) -> bool:
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """130 after SIGINT, 143 after SIGTERM, 129 after SIGHUP, 0 after none."""
        return 0 if self.signal is None else SIGNAL_EXIT_BASE + int(self.signal)

    def __enter__(self) -> StopFlag:
        # Python lets only the main thread handle signals; elsewhere the flag stays unset.
        if threading.current_thread() is threading.main_thread():
            wanted = [s for s in SIGNALS if s != HANGUP or signal.getsignal(s) is not signal.SIG_IGN]
            self._before = {s: signal.signal(s, self._receive) for s in wanted}
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.signal is None:
            self.signal = signal.Signals(number)
        elif number != HANGUP:
            os._exit(SIGNAL_EXIT_BASE + number)
