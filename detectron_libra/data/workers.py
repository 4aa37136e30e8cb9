# SPDX-License-Identifier: Apache-2.0
"""Batches as they come from worker processes, and what is told when one of these dies or hangs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from torch.utils.data import DataLoader

from detectron_libra.data.cache import Cache
from detectron_libra.data.forking import interrupt_deferred
from detectron_libra.data.held import Held
from detectron_libra.errors import LibraError, RunError
from detectron_libra.structures import Batch


def _kill(workers: Sequence[Any]) -> None:
    """Ends workers that hang: they do not heed SIGTERM."""
    for worker in workers:
        while worker.is_alive():
            with suppress(RuntimeError):  # torch tells of the end that is made here
                worker.kill()
                worker.join()


def _is_bug(error: BaseException) -> bool:
    """Whether an error came out of our code, and not from a worker that died, hangs, or has no memory.

    A batch of a worker that died after sending it fails where it is received, with what the socket says.
    """
    text = str(error)
    if "shared memory" in text:
        return False
    if "in DataLoader worker process" in text:
        return True
    return isinstance(error, RuntimeError) and "DataLoader" not in text


class Loader:
    """An iterable of batches; each ``iter`` starts at the first one. ``len`` is their number.

    Args:
        loader: of torch, which gives a Batch or the error of the worker that was to make it.
        held: what its workers have in their hands.
        files: gives the path of each record.
        cache: of its workers.
    """

    def __init__(
        self, loader: DataLoader, held: Held, files: Callable[[], Sequence[str]], cache: Cache | None = None
    ) -> None:
        self._loader = loader
        self._held = held
        self._files = files
        self._cache = cache
        self._batches: Any = None

    @property
    def ready(self) -> int:
        """Batches that lie in the queue; 0 without workers, and where the system does not tell."""
        # torch has no public way; without it the number is unknown, and nothing depends on it
        queue = getattr(self._batches, "_data_queue", None)
        try:
            return queue.qsize() if queue is not None else 0
        except (NotImplementedError, OSError):
            return 0

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Batch]:
        """Starts the workers, for which torch draws a random number, and gives their batches.

        Raises:
            InputError: an image cannot be used; the text names it.
            RunError: a worker process died or hangs.
        """
        # Not a generator itself: the number has to be drawn now, before a resumed run restores its random state.
        with interrupt_deferred():
            self._batches = iter(self._loader)
        return self._receive_all(self._batches)

    def _receive_all(self, batches: Any) -> Iterator[Batch]:
        try:
            while True:
                item = self._receive(batches)
                if item is None:
                    return
                if isinstance(item, LibraError):
                    raise item
                if self._cache:
                    self._cache.tell()
                yield item
        finally:
            # Now, not when the interpreter exits: an error that holds this frame would keep them until then,
            # and it waits for them for ever, since they do not heed SIGTERM. torch has no public way.
            self._batches = None
            # Its handler may tell of a dead worker once more meanwhile, and would hide the error that names the remedy.
            if hasattr(batches, "_shutdown_workers"):
                with suppress(RuntimeError):
                    batches._shutdown_workers()
                _kill(batches._workers)

    def _receive(self, batches: Iterator[Any]) -> Batch | LibraError | None:
        """The next batch or the error of the worker that was to make it; None after the last one."""
        try:
            return next(batches, None)
        except (RuntimeError, EOFError, OSError) as e:
            try:
                stopped = self._explain(batches, e)
            except RuntimeError:  # of torch's signal handler, which tells of the same worker meanwhile
                stopped = self._explain(batches, e)
            if stopped is None:
                raise
            raise stopped from e

    def _explain(self, batches: Iterator[Any], error: Exception) -> RunError | None:
        """The error of a worker that died or hangs, which ends the others; None for a bug of ours."""
        if self._loader.num_workers == 0 or _is_bug(error):
            return None
        stopped = self.stopped(error)
        _kill(getattr(batches, "_workers", ()))  # one that hangs would let the shutdown wait
        return stopped

    def stopped(self, error: BaseException) -> RunError:
        """What to tell about a worker that died or hangs, with the image that it had in its hands.

        Args:
            error: of torch, which raises it wherever the main process is when a worker dies.
        """
        text = (str(error) or type(error).__name__).splitlines()[0].rstrip(" .")
        workers = getattr(self._batches, "_workers", ())
        hung = "timed out" in text
        image = self._held.describe(workers, self._files(), hung=hung)
        if hung:
            remedy = "is the disk slow or the image no plain file? raise DATA.TIMEOUT_S"
            return RunError(f"a data worker hangs ({text}){image}; {remedy}")
        remedy = "out of memory or /dev/shm? lower DATA_LOADER.NUM_THREADS"
        return RunError(f"a data worker stopped ({text}){image}; {remedy}")
