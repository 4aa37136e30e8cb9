# SPDX-License-Identifier: Apache-2.0
"""The parent's side of the workers: one call at a time, and none of them outlives the block."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from multiprocessing.context import ForkServerContext
from typing import Any

from detectron_libra.builders.benchmark.plan import Contender, Order
from detectron_libra.builders.benchmark.worker import serve
from detectron_libra.errors import InputError, LibraError, RunError, UsageError

#: Seconds that a worker has to end once nobody calls it any more.
GRACE_S = 10.0


@cache
def _context() -> ForkServerContext:
    """Workers are forked from a process that has imported everything and computed nothing: fresh, and at once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([serve.__module__])
    return context


class Hired:
    """A worker process."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self._connection, theirs = _context().Pipe()
        # no daemon: a loader has processes of its own; whoever is not called any more ends
        self._process = _context().Process(target=serve, args=(theirs, order))
        self._process.start()
        theirs.close()

    @property
    def contender(self) -> Contender:
        """Whom it works for."""
        return self.order.contender

    def call(self, name: str, *arguments: Any) -> Any:
        """The result of a method of ``worker.Worker``; raises as ``answer``."""
        try:
            self._connection.send((name, arguments))
        except OSError:
            raise self._ended() from None
        return self.answer()

    def answer(self) -> Any:
        """Waits for what the worker says.

        Raises:
            LibraError: of the kind that it met. RunError: it is gone.
        """
        try:
            answer = self._connection.recv()
        except (EOFError, OSError):
            raise self._ended() from None
        if answer[0]:
            return answer[1]
        kinds = {kind.exit_code: kind for kind in (UsageError, InputError, RunError)}
        raise kinds.get(answer[1], LibraError)(answer[2])

    def hang_up(self) -> None:
        """Ends the process."""
        self._connection.close()
        self._process.join(GRACE_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _ended(self) -> RunError:
        self._process.join(GRACE_S)
        code = self._process.exitcode
        how = f"was ended by signal {-code}" if code is not None and code < 0 else f"ended with code {code}"
        return RunError(
            f"{self.contender.title}: its process {how}; was there memory for all contenders side by side? Lower the "
            "image size, IMS_PER_BATCH or the number of --precision"
        )


@contextmanager
def hired(orders: Sequence[Order]) -> Iterator[list[Hired]]:
    """A worker for each order, all of them built and waiting."""
    with ExitStack() as stack:
        crew = []
        for order in orders:
            crew.append(Hired(order))
            stack.callback(crew[-1].hang_up)
        for worker in crew:
            worker.answer()
        yield crew
