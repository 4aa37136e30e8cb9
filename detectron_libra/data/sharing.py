# SPDX-License-Identifier: Apache-2.0
"""Batches in the memory that a worker shares with the main process, and what is told where there is no room in it."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from detectron_libra.errors import RunError
from detectron_libra.structures import Batch

#: In every error of torch about it.
PHRASE = "shared memory"


def shared(make: Callable[[], Batch]) -> Batch | RunError:
    """Make a batch and move its tensors into shared memory, or say why they do not fit.

    torch would do so on the way to the main process, in a thread whose errors nobody hears of: the main process would
    wait for a batch that never comes.
    """
    try:
        batch = make()
        for holder in (batch, batch.targets, batch.proposals):
            for value in vars(holder).values() if holder is not None else ():
                if isinstance(value, Tensor) and value.untyped_storage().nbytes():
                    value.share_memory_()
    except (RuntimeError, OSError) as e:
        if PHRASE not in str(e):
            raise
        reason = str(e).splitlines()[0]
        return RunError(
            f"no room in shared memory for a batch ({reason}); make /dev/shm larger (docker: --shm-size), or lower "
            "DATA.WORKERS (0 needs none) or IMS_PER_BATCH"
        )
    return batch
