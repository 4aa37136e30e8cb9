# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C while worker processes are started."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def interrupt_deferred() -> Iterator[None]:
    """Let SIGINT wait until the block is left.

    What Python and its libraries do around a fork swallows an exception, that of Ctrl-C too, and the process would go
    on as if nobody had asked it to end. Blocking the signal would not do: the system hands it to any other thread
    then, and Python's handler runs all the same.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is None or threading.current_thread() is not threading.main_thread():
        yield  # not Python's to handle, or not here
        return
    came: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if came:
            signal.raise_signal(signal.SIGINT)
