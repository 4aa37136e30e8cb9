# SPDX-License-Identifier: Apache-2.0
"""Nothing that is not finite reaches the weights: a step is looked at before the optimizer makes it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from detectron_libra.errors import RunError
from detectron_libra.structures import Batch

FILES_SHOWN = 16
#: An update is at most this many times rate and gradient: biases learn faster, and momentum adds steps up.
LARGEST_UPDATE = 100.0


@dataclass(frozen=True)
class Step:
    """What is told about a step that failed: losses are (0-d), raw and not weighted.

    Attributes:
        rng: random state before the model ran, see ``rng.get_state``.
    """

    iteration: int
    lr: float
    losses: Mapping[str, Tensor]
    grad_norm: Tensor
    batch: Batch
    rng: Mapping[str, Any] = field(default_factory=dict)


class NonFinite(RunError):
    """A loss, a gradient or an update that is not finite, which the run does not go on after."""


def refuse(step: Step) -> None:
    """Raises NonFinite for a step."""
    raise NonFinite(describe(step))


def describe(step: Step) -> str:
    """One line: loss parts, iteration, learning rate, norm of the gradient, and the images."""
    parts = ", ".join(f"{name} {value.item():.6g}" for name, value in step.losses.items())
    return (
        f"loss, gradient or update is not finite at iteration {step.iteration} (lr {step.lr:.6g}): {parts}, "
        f"gradient norm {step.grad_norm.item():.6g}; lower SOLVER.BASE_LR, lengthen "
        f"SOLVER.WARM_UP_ITERS or set TRAIN.CLIP_GRAD_NORM, and look at the images: {_files(step.batch)}"
    )


def require_finite(model: nn.Module, iteration: int) -> None:
    """Call before weights are saved.

    Raises:
        NonFinite: a weight or a statistic of the model is not finite; the text names the first one.
    """
    values = {name: v for name, v in model.state_dict().items() if v.is_floating_point()}
    finite = torch.stack([v.isfinite().all() for v in values.values()]).tolist()
    bad = [name for name, good in zip(values, finite, strict=True) if not good]
    if bad:
        raise NonFinite(
            f"{bad[0]} is not finite after iteration {iteration}, and so are {len(bad) - 1} more of the weights; "
            "nothing is saved: lower SOLVER.BASE_LR or set TRAIN.CLIP_GRAD_NORM"
        )


class Guard:
    """Looks at the loss and the gradient of every step before the optimizer sees them.

    On a CPU a bad step is told at once. On a GPU asking would make the host wait: there the optimizer is told to
    leave the weights alone (``found_inf``, as for loss scaling), and the step is told one step later.

    Args:
        optimizer: of the run.
        on_bad: given each bad step; raises, or returns where the run shall go on without that step.
        buffers: what the model changes while it runs (running statistics), to be as before after a bad step;
            needed where ``on_bad`` returns.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        on_bad: Callable[[Step], None] = refuse,
        buffers: Iterable[Tensor] = (),
    ) -> None:
        self._optimizer = optimizer
        self._on_bad = on_bad
        self._can_mask = bool(optimizer.defaults.get("fused"))
        self._buffers = list(buffers)
        self._before = [torch.empty_like(b) for b in self._buffers]
        self._pending: tuple[Step, Tensor, torch.cuda.Event] | None = None
        if self._can_mask:
            _make_momentum(optimizer)

    def remember(self) -> None:
        """Call before the model runs."""
        if self._buffers:
            torch._foreach_copy_(self._before, self._buffers)

    def check(self, step: Step, total: Tensor) -> bool:
        """Call between backward and ``optimizer.step()``.

        Returns:
            Whether the optimizer is to be called; on a GPU it always is, and knows itself what to do.

        Raises:
            NonFinite: from ``on_bad``, for this step or the one before.
        """
        self.flush()
        # float32 ends at 3.4e38: a finite gradient can still make an update that is not
        update = step.grad_norm * (1 + LARGEST_UPDATE * step.lr)
        bad = ~torch.isfinite(total.detach() + update)
        if not (bad.is_cuda and self._can_mask):
            if bad:
                _put_back(self._buffers, self._before)
                self._on_bad(step)
                return False
            return True
        setattr(self._optimizer, "found_inf", bad.float())  # noqa: B010 - read by the fused kernels, not declared
        for buffer, before in zip(self._buffers, self._before, strict=True):
            buffer.copy_(torch.where(bad, before, buffer))
        event, flag = torch.cuda.Event(), torch.empty((), dtype=torch.bool, pin_memory=True)
        flag.copy_(bad, non_blocking=True)
        event.record()
        self._pending = step, flag, event
        return True

    def flush(self) -> None:
        """Waits for the verdict on the last step; call it before anything is saved.

        Raises:
            NonFinite: from ``on_bad``, for that step.
        """
        if self._pending is None:
            return
        step, flag, event = self._pending
        self._pending = None
        event.synchronize()
        if flag:
            self._on_bad(step)


@contextmanager
def memory_errors_named(batch: Batch) -> Iterator[None]:
    """Turns running out of memory, on a GPU or on the host, into a RunError that names the batch."""
    try:
        yield
    except RuntimeError as e:
        if isinstance(e, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(e):
            raise _out_of_memory(batch, e) from e
        raise


@contextmanager
def worker_errors_named(loader: object) -> Iterator[None]:
    """Turns the end of a loader's worker, which torch raises wherever the main process is, into a RunError.

    Args:
        loader: ``data.workers.Loader``; any other iterable has no workers, and nothing is changed.
    """
    try:
        yield
    except RuntimeError as e:
        stopped = getattr(loader, "stopped", None)
        if stopped is None or "DataLoader worker (pid" not in str(e):
            raise
        raise stopped(e) from e


def _make_momentum(optimizer: Optimizer) -> None:
    # A fused SGD that leaves out its very first step on a GPU leaves its buffers as the memory was.
    for group in optimizer.param_groups:
        if group.get("momentum"):
            for p in group["params"]:
                if p.is_cuda and optimizer.state[p].get("momentum_buffer") is None:
                    optimizer.state[p]["momentum_buffer"] = torch.zeros_like(p)


def _put_back(buffers: Sequence[Tensor], before: Sequence[Tensor]) -> None:
    if buffers:
        torch._foreach_copy_(buffers, before)


def _out_of_memory(batch: Batch, error: RuntimeError) -> RunError:
    shape = " x ".join(str(n) for n in batch.images.shape)
    boxes = 0 if batch.targets is None else batch.targets.classes.shape[1]
    reason = str(error).strip().splitlines()[0]
    return RunError(
        f"out of memory on a batch of {shape} with up to {boxes} boxes an image ({reason}); lower "
        f"IMS_PER_BATCH, SCALES or MAX_SIZE; images: {_files(batch)}"
    )


def _files(batch: Batch) -> str:
    names = [meta.file for meta in batch.metas]
    more = len(names) - FILES_SHOWN
    return ", ".join(names[:FILES_SHOWN]) + (f" and {more} more" if more > 0 else "")
