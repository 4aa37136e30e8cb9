# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C while worker processes are started."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def interrupt_deferred() -> Iterator[None]:
    """Let SIGINT wait until the block is left.

    What Python and its libraries do around a fork swallows an exception, that of Ctrl-C too, and the process would go
    on as if nobody had asked it to end. Processes that start in the block begin with SIGINT blocked.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
