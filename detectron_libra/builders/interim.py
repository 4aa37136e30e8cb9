# SPDX-License-Identifier: Apache-2.0
"""Evaluations in the middle of a training (TRAIN.EVAL_PERIOD): at once, or in a thread beside the training."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from detectron_libra.builders.recall import TASK
from detectron_libra.builders.report import Found, measure
from detectron_libra.builders.rules import geometry_of
from detectron_libra.builders.testing import detect_on
from detectron_libra.config import Config
from detectron_libra.data.coco import Dataset
from detectron_libra.engine.later import Evaluate
from detectron_libra.engine.signals import StopFlag
from detectron_libra.evaluation.coco_results import write_coco_results

log = logging.getLogger(__name__)


def evaluation(
    cfg: Config,
    model: nn.Module,
    datasets: Sequence[Dataset],
    device: torch.device,
    folder: Path,
    stop: StopFlag,
) -> Evaluate:
    """A function that evaluates the model as it is at an iteration.

    Detecting needs the device and the weights of that very iteration, so the training waits for it. What follows needs
    neither: with TRAIN.EVAL_IN_BACKGROUND a thread measures, and writes what TRAIN.EVAL_RESULTS asks for. A thread is
    enough, since hotcoco and NumPy leave the interpreter to the training while they compute; it draws no random numbers
    and touches no weights, so that it changes nothing in the training.
    """

    def evaluate(iteration: int) -> Mapping[str, Any] | Future:
        found = {
            dataset.name: detect_on(cfg, model, dataset, device, stop).detections
            for dataset in datasets
            if dataset.annotated
        }
        work = partial(measure_and_write, cfg, datasets, found, folder, iteration)
        return in_background(work) if cfg.TRAIN.EVAL_IN_BACKGROUND else work()

    return evaluate


def in_background(work: Callable[[], Mapping[str, Any]]) -> Future:
    """What ``work`` gives, or raises, from a thread of its own that ends with it."""
    thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="evaluation")
    future = thread.submit(work)
    thread.shutdown(wait=False)
    return future


def measure_and_write(
    cfg: Config, datasets: Sequence[Dataset], found: Mapping[str, Found], folder: Path, iteration: int
) -> dict[str, dict]:
    """Box metrics of every set that ``found`` has detections of; for proposals alone, their recall.

    Raises:
        InputError: an annotation file cannot be read any more. RunError: the file of results cannot be written.
    """
    task, metric = (TASK, "AR@1000") if cfg.MODEL.RPN_ONLY else ("box", "AP")
    results: dict[str, dict] = {}
    for dataset in datasets:
        if dataset.name not in found:
            continue
        detections, begun = found[dataset.name], time.perf_counter()
        values = measure(cfg, dataset, detections)[dataset.name][task]
        results[dataset.name] = {task: values}
        seconds = time.perf_counter() - begun
        log.info(
            "iteration %d: %s %s %s, measured in %.2f s",
            iteration,
            dataset.name,
            metric,
            values[metric],
            seconds,
        )
        if cfg.TRAIN.EVAL_RESULTS and not cfg.MODEL.RPN_ONLY:
            file = folder / f"bbox_{dataset.name}_results_iter{iteration}.json"
            write_coco_results(file, dataset, detections, extent=geometry_of(cfg).extent)
            log.info("written to %s in %.2f s", file, time.perf_counter() - begun - seconds)
    return results
