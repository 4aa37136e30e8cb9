# SPDX-License-Identifier: Apache-2.0
"""Our own side: the detector of the configuration, in the step that the training and the test make."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from detectron_libra.builders import session
from detectron_libra.builders.benchmark.our_parts import places_of
from detectron_libra.builders.benchmark.plan import REFERENCE, Order
from detectron_libra.builders.benchmark.ranges import Place, named
from detectron_libra.builders.benchmark.scene import as_batch, endless, scenes
from detectron_libra.builders.benchmark.subject import LR, Subject
from detectron_libra.builders.check import calmed
from detectron_libra.builders.data import load_test_datasets, load_train_datasets, test_loader, train_loader
from detectron_libra.builders.detector import build_detector, loss_weights
from detectron_libra.builders.imbalance import counts_of_classes
from detectron_libra.builders.solver import build_solver
from detectron_libra.config import Config, with_values
from detectron_libra.data.coco import Dataset
from detectron_libra.engine.guard import Guard
from detectron_libra.engine.optim import set_lr
from detectron_libra.engine.step import train_step
from detectron_libra.structures import Batch, Detections

#: The loader plans as many batches, of which the measurement takes what it needs.
MANY_ITERATIONS = 100_000


def build_ours(order: Order) -> Subject:
    """The contender of an order that is ours, with the kernels or without."""
    who = order.contender
    cfg = order.cfg
    if who.impl == REFERENCE:
        cfg = with_values(cfg, {"OPS.BACKEND": "reference"})
    device = session.start(cfg)
    session.seed(cfg.RNG_SEED)
    datasets = _datasets(cfg, who.mode) if who.loader else []
    weighted = cfg.LOSS.CLASS_WEIGHTS.KIND != "none"
    counts = torch.ones(cfg.MODEL.NUM_CLASSES - 1, dtype=torch.int64) if weighted else None
    if datasets and who.mode == "train":
        counts = counts_of_classes(cfg, datasets)
    model = session.place(cfg, calmed(build_detector(cfg, cfg.MODEL.NUM_CLASSES, counts)), device)
    pinned = device.type == "cuda"
    if datasets:
        batches = _from_loader(cfg, datasets, who.mode, pinned=pinned)
    else:
        drawn = [as_batch(order, scene) for scene in scenes(order, cfg.MODEL.NUM_CLASSES)]
        batches = endless(drawn, pinned=pinned)
    build = _training if who.mode == "train" else _testing
    return build(cfg, order, model, batches, device)


def _datasets(cfg: Config, mode: str) -> list[Dataset]:
    return load_train_datasets(cfg) if mode == "train" else load_test_datasets(cfg, None)


def _from_loader(cfg: Config, datasets: list[Dataset], mode: str, *, pinned: bool) -> Iterator[Batch]:
    if mode == "train":
        # the measurement has to end before the data
        longer = with_values(cfg, {"SOLVER.MAX_ITER": MANY_ITERATIONS})
        yield from train_loader(longer, datasets, start_iteration=0, pin_memory=pinned)
    while mode == "test":
        yield from test_loader(cfg, datasets[0], pin_memory=pinned)


def _training(
    cfg: Config, order: Order, model: nn.Module, batches: Iterator[Batch], device: torch.device
) -> Subject:
    model.train()
    optimizer, _ = build_solver(cfg, model)
    guard, weights, iterations = Guard(optimizer), loss_weights(cfg), itertools.count()
    set_lr(optimizer, LR)
    seen: dict[str, torch.Tensor] = {}

    def step() -> None:
        with named("data"):
            batch = next(batches)
        values = train_step(
            model,
            batch.to(device),
            optimizer,
            guard,
            iteration=next(iterations),
            lr=LR,
            loss_weights=weights,
            precision=order.contender.precision,
            clip_grad_norm=cfg.TRAIN.CLIP_GRAD_NORM,
        )
        seen.update({name: values[name].detach() for name in ("loss", "grad_norm")})

    def counts() -> dict[str, float]:
        guard.flush()
        return {name: value.item() for name, value in seen.items()}

    places = [
        *places_of(model),
        Place(optimizer, "step", "optimizer"),
        Place(optimizer, "zero_grad", "optimizer"),
        Place(guard, "check", "optimizer"),
        Place(torch.nn.utils, "get_total_norm", "optimizer"),
    ]
    return Subject(step, places, counts, _settings(cfg), order.batch)


def _testing(
    cfg: Config, order: Order, model: nn.Module, batches: Iterator[Batch], device: torch.device
) -> Subject:
    model.eval()
    low = order.contender.precision == "bf16"

    def step() -> list[Detections]:
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=low):
            with named("data"):
                batch = next(batches)
            return [found.to("cpu") for found in model(batch.to(device))]

    def counts() -> dict[str, float]:
        found = {"detections": sum(map(len, step())) / order.batch}
        candidates: Any = getattr(model, "candidates", None)
        if candidates is not None:
            with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=low):
                each = candidates(next(batches).to(device))
            found["candidates"] = sum(len(one.scores) for one in each) / order.batch
        return found

    return Subject(step, places_of(model), counts, _settings(cfg), order.batch)


def _settings(cfg: Config) -> str:
    told = {
        "CHANNELS_LAST": cfg.CHANNELS_LAST,
        "CPU.FLUSH_DENORMAL": cfg.CPU.FLUSH_DENORMAL,
        "CPU.TUNE_MALLOC": cfg.CPU.TUNE_MALLOC,
        "OPS.BACKEND": cfg.OPS.BACKEND,
    }
    return ", ".join(f"{key} {value}" for key, value in told.items())
