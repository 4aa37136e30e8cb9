# SPDX-License-Identifier: Apache-2.0
"""Nothing that is not finite reaches the weights; the run stops, and says what is needed to find out why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim import Optimizer

from detectron_libra.errors import RunError
from detectron_libra.structures import Batch

FILES_SHOWN = 16


@dataclass(frozen=True)
class Step:
    """What is told about a step that failed: losses are (0-d), raw and not weighted."""

    iteration: int
    lr: float
    losses: Mapping[str, Tensor]
    grad_norm: Tensor
    batch: Batch


class Guard:
    """Looks at the loss and the gradient of every step before the optimizer sees them.

    On a CPU a bad step raises at once. On a GPU asking would make the host wait: there the optimizer is told
    to leave the weights alone (``found_inf``, as for loss scaling), and the error comes one step later.

    Args:
        optimizer: of the run.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._can_skip = bool(optimizer.defaults.get("fused"))
        self._pending: tuple[Step, Tensor, torch.cuda.Event] | None = None

    def check(self, step: Step, total: Tensor) -> None:
        """Call between backward and ``optimizer.step()``.

        Raises:
            RunError: the loss or the gradient of this step, or of the one before, is not finite.
        """
        self.flush()
        bad = ~torch.isfinite(total.detach() + step.grad_norm)
        if not (bad.is_cuda and self._can_skip):
            if bad:
                raise _error(step)
            return
        setattr(self._optimizer, "found_inf", bad.float())  # noqa: B010 - read by the fused kernels, not declared
        event, flag = torch.cuda.Event(), torch.empty((), dtype=torch.bool, pin_memory=True)
        flag.copy_(bad, non_blocking=True)
        event.record()
        self._pending = step, flag, event

    def flush(self) -> None:
        """Waits for the verdict on the last step; call it before anything is saved.

        Raises:
            RunError: that step was not finite.
        """
        if self._pending is None:
            return
        step, flag, event = self._pending
        self._pending = None
        event.synchronize()
        if flag:
            raise _error(step)


@contextmanager
def memory_errors_named(batch: Batch) -> Iterator[None]:
    """Turns running out of memory, on a GPU or on the host, into a RunError that names the batch."""
    try:
        yield
    except RuntimeError as e:
        if isinstance(e, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(e):
            raise _out_of_memory(batch, e) from e
        raise


def _out_of_memory(batch: Batch, error: RuntimeError) -> RunError:
    shape = " x ".join(str(n) for n in batch.images.shape)
    boxes = 0 if batch.targets is None else batch.targets.classes.shape[1]
    reason = str(error).strip().splitlines()[0]
    return RunError(
        f"out of memory on a batch of {shape} with up to {boxes} boxes an image ({reason}); lower "
        f"IMS_PER_BATCH, SCALES or MAX_SIZE; images: {_files(batch)}"
    )


def _error(step: Step) -> RunError:
    parts = ", ".join(f"{name} {value.item():.6g}" for name, value in step.losses.items())
    return RunError(
        f"loss or gradient is not finite at iteration {step.iteration} (lr {step.lr:.6g}): {parts}, "
        f"gradient norm {step.grad_norm.item():.6g}; lower SOLVER.BASE_LR, lengthen "
        f"SOLVER.WARM_UP_ITERS or set TRAIN.CLIP_GRAD_NORM, and look at the images: {_files(step.batch)}"
    )


def _files(batch: Batch) -> str:
    names = [meta.file for meta in batch.metas]
    more = len(names) - FILES_SHOWN
    return ", ".join(names[:FILES_SHOWN]) + (f" and {more} more" if more > 0 else "")
