# SPDX-License-Identifier: Apache-2.0
"""Results of a training run that come later than the step they belong to."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from types import TracebackType
from typing import Any

log = logging.getLogger(__name__)

#: Given the iteration and the result.
Note = Callable[[int, Mapping[str, Any]], None]
#: Given the iteration: its result, or a Future of it.
Evaluate = Callable[[int], Mapping[str, Any] | Future]


class Later:
    """Hands results on in the thread that trains, once they are there; at the end of the ``with`` block, all of them.

    One that fails raises what it failed with, as it would have without delay; while the block ends for another reason,
    it is an error in the log.

    Args:
        note: takes a result.
    """

    def __init__(self, note: Note) -> None:
        self._note = note
        self._waiting: deque[tuple[int, Future]] = deque()

    def take(self, iteration: int, evaluate: Evaluate) -> None:
        """Asks for the result of an iteration once earlier ones are there.

        So they do not pile up, and no process is forked (``evaluate`` may start readers) while one is being computed.

        Args:
            evaluate: given the iteration, returns the result or a Future of it.
        """
        self.collect(wait=True)
        result = evaluate(iteration)
        if isinstance(result, Future):
            self._waiting.append((iteration, result))
        else:
            self._note(iteration, result)

    def collect(self, *, wait: bool = False) -> None:
        """Hands on what is there; with ``wait`` everything, in order."""
        while self._waiting and (wait or self._waiting[0][1].done()):
            iteration, future = self._waiting.popleft()
            self._note(iteration, future.result())

    def __enter__(self) -> Later:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        while self._waiting:
            iteration = self._waiting[0][0]
            if not self._waiting[0][1].done():
                log.info("waiting for what is measured at iteration %d", iteration)
            try:
                self.collect(wait=True)
            except Exception as e:
                if error is None:
                    raise
                log.error("what was measured at iteration %d failed: %s", iteration, e)
