# SPDX-License-Identifier: Apache-2.0
"""The training loop."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from detectron_libra import files
from detectron_libra.engine import checkpoint, rng
from detectron_libra.engine.guard import Guard, Step, memory_errors_named
from detectron_libra.engine.metrics import Metrics
from detectron_libra.engine.optim import set_lr
from detectron_libra.engine.saving import Saver
from detectron_libra.engine.schedule import LearningRate
from detectron_libra.engine.signals import StopFlag
from detectron_libra.errors import RunError
from detectron_libra.structures import Batch

log = logging.getLogger(__name__)


def train(
    model: nn.Module,
    loader: Iterable[Batch],
    optimizer: Optimizer,
    schedule: LearningRate,
    *,
    loss_weights: Mapping[str, float],
    max_iter: int,
    folder: Path | str,
    device: torch.device | str = "cpu",
    resume: checkpoint.Checkpoint | None = None,
    precision: str = "fp32",
    clip_grad_norm: float = 0.0,
    scale_momentum: bool = True,
    scale_momentum_threshold: float = 1.1,
    snapshot_period: int = 1000,
    checkpoints_kept: int = 2,
    log_period: int = 20,
    eval_period: int = 0,
    evaluate: Callable[[int], Mapping[str, Any]] | None = None,
    on_checkpoint: Callable[[Path, int], None] | None = None,
    stop: StopFlag | None = None,
    config_text: str = "",
    class_names: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
) -> Path:
    """Trains to ``max_iter``, from the start or from where ``resume`` ended.

    A resumed run does the same as one that was never interrupted, on a CPU bit for bit.

    Args:
        model: on ``device``; in train mode it maps a Batch to (raw losses, metrics), dicts of 0-d tensors.
        loader: one Batch per iteration, from the first one to be done; ``ready`` of them, where it has this
            attribute, lie in its queue.
        optimizer: from optim.build_optimizer; restored by checkpoint.restore in a resumed run.
        schedule: learning rate of each iteration.
        loss_weights: factor of each raw loss in the total.
        max_iter: iterations of the whole run.
        folder: of the checkpoints, the final weights and metrics.jsonl; exists.
        resume: the checkpoint that the model and the optimizer were restored from.
        precision: ``fp32``, or ``bf16`` for autocast around the model.
        clip_grad_norm: largest L2 norm of the gradient; 0: no limit.
        scale_momentum, scale_momentum_threshold: see optim.set_lr.
        snapshot_period: iterations between checkpoints; the last iteration always gives one.
        checkpoints_kept: newest ones that stay; 0: all.
        log_period: iterations between lines of metrics.jsonl.
        eval_period: iterations between calls of ``evaluate``, each after a checkpoint; 0: none. Not after the
            last iteration.
        evaluate: given the iteration, returns what goes into metrics.jsonl; may put the model into eval mode.
        on_checkpoint: given the path and the iteration of each checkpoint.
        stop: once it is set, the step is finished, a checkpoint written, and SystemExit raised.
        config_text, class_names, settings: kept in the checkpoints and with the final weights.

    Returns:
        Path of the final weights.

    Raises:
        RunError: a loss or gradient that is not finite, memory, disk.
        SystemExit: 130 or 143 after ``stop``.
    """
    folder, device = Path(folder), torch.device(device)
    start = resume.next_iteration if resume else 0
    stop = StopFlag() if stop is None else stop
    files.remove_leftovers(folder)
    metrics = Metrics(
        folder / "metrics.jsonl",
        start_iteration=start,
        max_iter=max_iter,
        period=log_period,
        device=device,
        window=resume.state["metrics"] if resume else None,
    )
    saver = Saver(
        folder,
        model,
        optimizer,
        metrics,
        checkpoints_kept,
        config_text,
        class_names,
        settings or {},
        on_checkpoint,
    )
    guard = Guard(optimizer)
    batches = iter(loader)
    if resume:
        rng.set_state(resume.state["rng"])  # after iter(), which draws the seeds of the workers
    model.train()

    try:
        for iteration in range(start, max_iter):
            begun, queued = time.perf_counter(), getattr(loader, "ready", 0)
            batch = _next(batches, iteration)
            waited = time.perf_counter() - begun
            batch = batch.to(device)

            lr = schedule.lr(iteration)
            set_lr(optimizer, lr, scale_momentum=scale_momentum, threshold=scale_momentum_threshold)
            values = train_step(
                model,
                batch,
                optimizer,
                guard,
                iteration=iteration,
                lr=lr,
                loss_weights=loss_weights,
                precision=precision,
                clip_grad_norm=clip_grad_norm,
            )
            seconds = time.perf_counter() - begun
            pace = {"images": len(batch.images), "seconds": seconds, "waited": waited, "queued": queued}
            metrics.step(iteration, lr, values, **pace)

            done, last = iteration + 1, iteration + 1 == max_iter
            to_evaluate = evaluate is not None and eval_period > 0 and done % eval_period == 0 and not last
            if stop or last or to_evaluate or done % snapshot_period == 0:
                guard.flush()
                path = saver.checkpoint(iteration)
                if stop and not last:
                    log.warning("stopped after iteration %d; resume goes on from %s", iteration, path)
                    raise SystemExit(stop.exit_code)
            if evaluate and to_evaluate:
                with rng.preserved():
                    metrics.note(iteration, {"eval": evaluate(iteration)})
                model.train()
    except RuntimeError as e:
        # torch raises it wherever the main process is when a worker dies
        if "DataLoader worker" not in str(e):
            raise
        remedy = "out of memory or /dev/shm? lower DATA_LOADER.NUM_THREADS"
        raise RunError(f"{str(e).splitlines()[0].rstrip(' .')}; {remedy}") from e
    finally:
        if hasattr(batches, "close"):
            batches.close()  # ends the workers of a loader
        metrics.close()
    return saver.final(max_iter - 1)


def train_step(
    model: nn.Module,
    batch: Batch,
    optimizer: Optimizer,
    guard: Guard,
    *,
    iteration: int,
    lr: float,
    loss_weights: Mapping[str, float],
    precision: str = "fp32",
    clip_grad_norm: float = 0.0,
) -> dict[str, Tensor]:
    """One step: losses, gradient, guard, update.

    Args:
        model: in train mode, on the device of ``batch``.
        optimizer: has the learning rate ``lr``, which is for messages here.
        guard: of the optimizer.
        iteration: for messages.
        loss_weights, precision, clip_grad_norm: see ``train``.

    Returns:
        What metrics are made of, 0-d tensors: the total, its weighted and raw parts, the model's metrics, and
        the norm of the gradient.

    Raises:
        RunError: a loss or gradient that is not finite, or no memory.
    """
    with memory_errors_named(batch):
        raw, values, total = _losses(model, batch, loss_weights, precision)
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        norm = _clip(optimizer, clip_grad_norm)
        guard.check(Step(iteration, lr, raw, norm, batch), total)
        optimizer.step()
    return values | {"grad_norm": norm}


def _next(batches: Iterator[Batch], iteration: int) -> Batch:
    batch = next(batches, None)
    if batch is None:
        raise RunError(
            f"the data ended before iteration {iteration}; lower SOLVER.MAX_ITER or check the loader"
        )
    return batch


def _losses(
    model: nn.Module, batch: Batch, weights: Mapping[str, float], precision: str
) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
    with torch.autocast(batch.images.device.type, torch.bfloat16, enabled=precision == "bf16"):
        raw, metrics = model(batch)
    weighted = {name: weights[name] * loss for name, loss in raw.items()}
    total = torch.stack(list(weighted.values())).sum()
    values = {"loss": total}
    values |= {f"loss_{name}": loss for name, loss in weighted.items()}
    values |= {f"raw_loss_{name}": loss for name, loss in raw.items()}
    return raw, values | metrics, total


def _clip(optimizer: Optimizer, limit: float) -> Tensor:
    """Scales the gradient down to ``limit`` (0: leaves it); returns its L2 norm before that, (0-d)."""
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters])
    if limit > 0:
        torch.nn.utils.clip_grads_with_norm_(parameters, limit, norm)
    return norm
