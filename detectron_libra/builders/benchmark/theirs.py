# SPDX-License-Identifier: Apache-2.0
"""torchvision's side: its detector in the step of its own references, on the same images and boxes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from itertools import cycle
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from detectron_libra.builders import session
from detectron_libra.builders.benchmark.plan import TUNED, Order
from detectron_libra.builders.benchmark.ranges import Place
from detectron_libra.builders.benchmark.scene import Scene, scenes
from detectron_libra.builders.benchmark.subject import LR, Subject
from detectron_libra.builders.benchmark.their_model import build_model
from detectron_libra.config import Config
from detectron_libra.engine.cpu import tune_cpu

Images: TypeAlias = list[Tensor]
Answers: TypeAlias = list[dict[str, Tensor]]
Counts: TypeAlias = Callable[[], dict[str, float]]


def build_theirs(order: Order) -> Subject:
    """The contender of an order that is torchvision's."""
    cfg, who = order.cfg, order.contender
    settings = prepare_process(cfg, tuned=who.impl == TUNED)
    device = session.pick_device(cfg)
    session.seed(cfg.RNG_SEED)
    model = build_model(cfg, order.size, order.pad_to).to(device)
    drawn = [
        as_lists(cfg, scene, pinned=device.type == "cuda") for scene in scenes(order, cfg.MODEL.NUM_CLASSES)
    ]
    build = _training if who.mode == "train" else _testing
    step, counts, more = build(cfg, order, model, cycle(drawn), device)
    return Subject(step, [*_places(model), *more], counts, settings, order.batch)


def prepare_process(cfg: Config, *, tuned: bool) -> str:
    """Threads as asked for, and nothing else unless ``tuned``: what a user of torchvision has."""
    if tuned:
        return f"{tune_cpu(threads=cfg.CPU.THREADS)}, contiguous"
    if cfg.CPU.THREADS:
        torch.set_num_threads(cfg.CPU.THREADS)
    return f"cpu: {torch.get_num_threads()} threads, denormals kept, allocator as it is, contiguous"


def as_lists(cfg: Config, scene: Scene, *, pinned: bool) -> tuple[Images, Answers]:
    """Images (3, H, W) in 0..1 and their boxes; RetinaNet's classes begin at 0, as it has no background."""
    first = 1 if cfg.RETINANET.RETINANET_ON else 0
    images = [image.float() / 255 for image in scene.images]
    answers = [
        {"boxes": boxes, "labels": classes - first}
        for boxes, classes in zip(scene.boxes, scene.classes, strict=True)
    ]
    if pinned:
        images = [image.pin_memory() for image in images]
        answers = [{name: value.pin_memory() for name, value in one.items()} for one in answers]
    return images, answers


def _training(
    cfg: Config,
    order: Order,
    model: nn.Module,
    batches: Iterator[tuple[Images, Answers]],
    device: torch.device,
) -> tuple[Callable[[], object], Counts, list[Place]]:
    """Source: torchvision's references/detection/engine.py, train_one_epoch, without its logging."""
    model.train()
    s = cfg.SOLVER
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=LR, momentum=s.MOMENTUM, weight_decay=s.WEIGHT_DECAY)
    low = order.contender.precision == "bf16"
    seen: dict[str, Tensor] = {}

    def step() -> None:
        images, answers = next(batches)
        images = [image.to(device, non_blocking=True) for image in images]
        answers = [{n: v.to(device, non_blocking=True) for n, v in one.items()} for one in answers]
        with torch.autocast(device.type, torch.bfloat16, enabled=low):
            losses = model(images, answers)
            total = sum(losses.values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        seen["loss"] = total.detach()

    places = [Place(optimizer, name, "optimizer") for name in ("step", "zero_grad")]
    return step, lambda: {"loss": seen["loss"].item()}, places


def _testing(
    cfg: Config,
    order: Order,
    model: nn.Module,
    batches: Iterator[tuple[Images, Answers]],
    device: torch.device,
) -> tuple[Callable[[], object], Counts, list[Place]]:
    model.eval()
    low = order.contender.precision == "bf16"

    def step() -> Answers:
        images = [image.to(device, non_blocking=True) for image in next(batches)[0]]
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=low):
            found = model(images)
        return [{name: value.cpu() for name, value in one.items()} for one in found]

    def counts() -> dict[str, float]:
        with _counted(model) as candidates:
            found = step()
        detections = sum(len(one["scores"]) for one in found)
        return {"detections": detections / order.batch, "candidates": sum(candidates) / order.batch}

    return step, counts, []


@contextmanager
def _counted(model: nn.Module) -> Iterator[list[int]]:
    """Collects how many boxes go into the last suppression of each image."""
    boxes: Any = import_module("torchvision.ops.boxes")
    owner: Any = getattr(model, "roi_heads", model)
    suppress, finish = boxes.batched_nms, owner.postprocess_detections
    counts: list[int] = []

    def counting(found: Tensor, *rest: Any) -> Tensor:
        counts.append(len(found))
        return suppress(found, *rest)

    def finishing(*arguments: Any) -> Any:
        boxes.batched_nms = counting
        try:
            return finish(*arguments)
        finally:
            boxes.batched_nms = suppress

    owner.postprocess_detections = finishing
    try:
        yield counts
    finally:
        del owner.postprocess_detections


def _places(model: Any) -> list[Place]:
    """The functions of its parts."""
    found = [
        Place(model.backbone.body, "forward", "backbone"),
        Place(model.backbone.fpn, "forward", "fpn"),
        Place(model.transform, "postprocess", "postprocess"),
    ]
    own = _rcnn_places if hasattr(model, "roi_heads") else _retinanet_places
    return [*found, *own(model)]


def _retinanet_places(model: Any) -> list[Place]:
    return [
        Place(model.head, "forward", "head"),
        Place(model.anchor_generator, "forward", "matching"),
        Place(model, "compute_loss", "matching"),  # what of it is not the next one
        Place(model.head, "compute_loss", "losses"),
        Place(model, "postprocess_detections", "postprocess"),
    ]


def _rcnn_places(model: Any) -> list[Place]:
    rpn, heads = model.rpn, model.roi_heads
    place = partial(Place, rpn)
    return [
        Place(rpn.head, "forward", "rpn_head"),
        Place(rpn.anchor_generator, "forward", "matching"),
        Place(rpn.box_coder, "decode", "proposals"),
        place("filter_proposals", "proposals"),
        place("assign_targets_to_anchors", "matching"),
        place("compute_loss", "losses"),
        Place(heads, "select_training_samples", "matching"),
        Place(heads.box_roi_pool, "forward", "roi_align"),
        Place(heads.box_head, "forward", "box_head"),
        Place(heads.box_predictor, "forward", "box_head"),
        Place(import_module("torchvision.models.detection.roi_heads"), "fastrcnn_loss", "losses"),
        Place(heads, "postprocess_detections", "postprocess"),
    ]
