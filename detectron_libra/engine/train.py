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
from detectron_libra.engine import checkpoint, replay, rng
from detectron_libra.engine.guard import Guard, require_finite, worker_errors_named
from detectron_libra.engine.later import Evaluate, Later
from detectron_libra.engine.metrics import Metrics
from detectron_libra.engine.nonfinite import OnNonfinite
from detectron_libra.engine.optim import set_lr
from detectron_libra.engine.rollback import lr_factor
from detectron_libra.engine.saving import Saver
from detectron_libra.engine.schedule import LearningRate
from detectron_libra.engine.signals import StopFlag
from detectron_libra.engine.step import train_step
from detectron_libra.engine.waiting import Waiting
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
    evaluate: Evaluate | None = None,
    on_checkpoint: Callable[[Path, int], None] | None = None,
    stop: StopFlag | None = None,
    on_nonfinite: str = "stop",
    nonfinite_limit: int = 10,
    config_text: str = "",
    class_names: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    waiting: Waiting | None = None,
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
        evaluate: given the iteration, returns what goes into metrics.jsonl, or a Future of it; may put the model into
            eval mode. A Future's result is noted when it is there, at the latest before this function ends, and what
            it raises is raised here.
        on_checkpoint: given the path and the iteration of each checkpoint.
        stop: once it is set, the step is finished, a checkpoint written, and SystemExit raised.
        on_nonfinite, nonfinite_limit: see nonfinite.OnNonfinite.
        config_text, class_names, settings: kept in the checkpoints and with the final weights.
        waiting: told of every step.

    Returns:
        Path of the final weights.

    Raises:
        NonFinite: a loss or gradient that is not finite, unless it is left out. RunError: memory, disk, a worker.
        SystemExit: 129, 130 or 143 after ``stop``.
    """
    folder, device = Path(folder), torch.device(device)
    start = resume.next_iteration if resume else 0
    stop = StopFlag() if stop is None else stop
    waiting = waiting or Waiting()
    files.remove_leftovers(folder)
    metrics = Metrics(
        folder / "metrics.jsonl",
        start_iteration=start,
        max_iter=max_iter,
        period=log_period,
        device=device,
        window=resume.state["metrics"] if resume else None,
    )
    factor = lr_factor(resume)
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
        factor,
    )
    on_bad = OnNonfinite(
        on_nonfinite,
        nonfinite_limit,
        folder,
        lambda step: replay.content(step, model, config_text),
        metrics.note,
    )
    guard = Guard(optimizer, on_bad=on_bad, buffers=changing(model) if on_nonfinite == "skip" else ())
    batches = iter(loader)
    if resume:
        rng.set_state(resume.state["rng"])  # after iter(), which draws the seeds of the workers
    model.train()

    try:
        with Later(noted(metrics)) as evaluations, worker_errors_named(loader):
            for iteration in range(start, max_iter):
                begun, queued = time.perf_counter(), getattr(loader, "ready", 0)
                batch = _next(batches, iteration)
                waited = time.perf_counter() - begun
                batch = batch.to(device)

                lr = factor * schedule.lr(iteration)
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
                waiting.add(iteration - start, images=len(batch.images), seconds=seconds, waited=waited)

                done, last = iteration + 1, iteration + 1 == max_iter
                to_evaluate = (
                    evaluate is not None and eval_period > 0 and done % eval_period == 0 and not last
                )
                if stop or last or to_evaluate or done % snapshot_period == 0:
                    guard.flush()
                    require_finite(model, iteration)
                    path = saver.checkpoint(iteration)
                    if stop and not last:
                        log.warning("stopped after iteration %d; resume goes on from %s", iteration, path)
                        raise SystemExit(stop.exit_code)
                evaluations.collect()
                if evaluate and to_evaluate:
                    with rng.preserved():
                        evaluations.take(iteration, evaluate)
                    model.train()
    finally:
        if hasattr(batches, "close"):
            batches.close()  # ends the workers of a loader
        metrics.close()
    return saver.final(max_iter - 1)


def noted(metrics: Metrics) -> Callable[[int, Mapping[str, Any]], None]:
    """A function that gives the results of an evaluation a line of their own."""
    return lambda iteration, results: metrics.note(iteration, {"eval": results})


def changing(model: nn.Module) -> list[Tensor]:
    """What a model may change while it runs: its stored buffers, such as running statistics."""
    parameters = {name for name, _ in model.named_parameters()}
    return [value for name, value in model.state_dict().items() if name not in parameters]


def _next(batches: Iterator[Batch], iteration: int) -> Batch:
    batch = next(batches, None)
    if batch is None:
        raise RunError(
            f"the data ended before iteration {iteration}; lower SOLVER.MAX_ITER or check the loader"
        )
    return batch
