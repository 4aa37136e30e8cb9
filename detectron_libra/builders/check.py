# SPDX-License-Identifier: Apache-2.0
"""A configuration tried out in seconds: its model, optimizer and schedule, on generated images and the CPU.

Nothing is read, downloaded or written: weights are random, images, boxes and proposals generated.
"""

import time

import numpy as np
import torch
from torch import Tensor, nn

from detectron_libra.builders import session
from detectron_libra.builders.data import preparation
from detectron_libra.builders.detector import build_detector, loss_weights
from detectron_libra.builders.solver import build_solver
from detectron_libra.builders.testing import precision_of
from detectron_libra.config import Config, with_values
from detectron_libra.data.batches import arrange, collate
from detectron_libra.data.coco import Record
from detectron_libra.data.plan import Sample
from detectron_libra.data.shapes import SHAPES, draw_shapes
from detectron_libra.engine.guard import Guard
from detectron_libra.engine.optim import set_lr
from detectron_libra.engine.step import train_step
from detectron_libra.modeling.backbones.blocks import ResidualBlock
from detectron_libra.modeling.backbones.resnet import Stem
from detectron_libra.modeling.norm import FrozenAffine
from detectron_libra.structures import Batch, Proposals

STEPS = 2
#: Most that is computed with: (height, width) of an image, images, regions and proposals.
SIZE = (96, 128)
IMAGES, REGIONS, PROPOSALS = 2, 64, 100
MAX_OBJECTS = 6
#: Standard deviation of pixels in 0..255, about; and what a block adds to its input.
PIXEL_DEVIATION, BRANCH_SHARE = 64.0, 0.25
#: With MODEL.NUM_CLASSES -1 the data says how many classes there are, and here are none: background and one.
FEWEST_CLASSES = 2


def check(cfg: Config) -> str:
    """Two training steps and one test step of what a configuration describes, made small.

    Returns:
        One line about it.

    Raises:
        UsageError: a key asks for what there is not. RunError: a loss is not finite, or there is no memory.
    """
    begun = time.perf_counter()
    cfg = reduced(cfg)
    device = session.start(cfg)
    session.seed(cfg.RNG_SEED)
    num_classes = cfg.MODEL.NUM_CLASSES
    model = session.place(cfg, calmed(build_detector(cfg, num_classes)), device).train()
    optimizer, schedule = build_solver(cfg, model)
    guard, weights = Guard(optimizer), loss_weights(cfg)
    totals = []
    for iteration in range(STEPS):
        lr = schedule.lr(iteration)
        set_lr(
            optimizer,
            lr,
            scale_momentum=cfg.SOLVER.SCALE_MOMENTUM,
            threshold=cfg.SOLVER.SCALE_MOMENTUM_THRESHOLD,
        )
        values = train_step(
            model,
            generate(cfg, iteration, training=True),
            optimizer,
            guard,
            iteration=iteration,
            lr=lr,
            loss_weights=weights,
            precision=precision_of(cfg, training=True),
            clip_grad_norm=cfg.TRAIN.CLIP_GRAD_NORM,
        )
        totals.append(values["loss"].item())
    low = precision_of(cfg, training=False) == "bf16"
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=low):
        found = model.eval()(generate(cfg, STEPS, training=False))
    parameters = sum(p.numel() for p in model.parameters())
    return (
        f"{type(model).__name__}, {parameters:,} parameters, {num_classes} classes with background; "
        f"{STEPS} training steps, losses {', '.join(f'{total:.4g}' for total in totals)}, learning rate "
        f"{lr:.4g}; 1 test step, {sum(map(len, found))} detections; {time.perf_counter() - begun:.1f} s"
    )


def calmed(model: nn.Module) -> nn.Module:
    """The model with random weights that can be trained for a few steps.

    Fixed normalisation belongs to pre-trained weights, which bring pixels of +-120 and sums of many blocks down to
    features of size 1. Random weights do not, and the first steps would diverge whatever the configuration says.
    """
    for module in model.modules():
        if isinstance(module, Stem):
            scale(module.norm, 1 / PIXEL_DEVIATION)
        elif isinstance(module, ResidualBlock):
            scale(module.last_norm(), BRANCH_SHARE)
    return model


def scale(norm: nn.Module, factor: float) -> None:
    """Multiply what a fixed normalisation gives; one that adapts is left alone."""
    if isinstance(norm, FrozenAffine):
        norm.weight.mul_(factor)


def reduced(cfg: Config) -> Config:
    """The configuration on a CPU, with images, and numbers of regions and proposals, that take seconds."""
    t = cfg.TRAIN
    side = min(SIZE)
    values = {
        "DEVICE": "cpu",
        "MODEL.NUM_CLASSES": max(cfg.MODEL.NUM_CLASSES, FEWEST_CLASSES),
        "TRAIN.IMS_PER_BATCH": min(t.IMS_PER_BATCH, IMAGES),
        "TRAIN.BATCH_SIZE_PER_IM": min(t.BATCH_SIZE_PER_IM, REGIONS),
        "TEST.SCALE": side,
    }
    for phase, keys in (("TRAIN", cfg.TRAIN), ("TEST", cfg.TEST)):
        values[f"{phase}.MAX_SIZE"] = max(SIZE)
        for name in ("RPN_PRE_NMS_TOP_N", "RPN_POST_NMS_TOP_N"):
            values[f"{phase}.{name}"] = min(getattr(keys, name) or PROPOSALS, PROPOSALS)
    return with_values(cfg, values)


def generate(cfg: Config, seed: int, *, training: bool) -> Batch:
    """A batch of drawn shapes, prepared as images of the data set would be; Fast R-CNN gets proposals too."""
    rng = np.random.default_rng((cfg.RNG_SEED % 2**32, seed))
    count = cfg.TRAIN.IMS_PER_BATCH if training else 1
    how = preparation(cfg)
    items = [
        arrange(*draw(rng, str(k), cfg.MODEL.NUM_CLASSES), Sample(k, min(SIZE)), how) for k in range(count)
    ]
    batch = collate(items, stride=how.stride, with_targets=training)
    proposals = None
    if not (cfg.RETINANET.RETINANET_ON or cfg.RPN.RPN_ON):
        proposals = draw_proposals(rng, batch.sizes)
    return Batch(batch.images, batch.sizes, batch.targets, batch.metas, proposals=proposals)


def draw(rng: np.random.Generator, name: str, num_classes: int) -> tuple[Tensor, Record]:
    """A picture (3, H, W) uint8 and what is in it."""
    classes = tuple(SHAPES)
    picture, objects = draw_shapes(
        rng,
        size=SIZE,
        classes=classes,
        frequencies=np.full(len(classes), 1 / len(classes)),
        crowding=0.5,
        max_objects=MAX_OBJECTS,
    )
    boxes = torch.tensor([box for _, box, _ in objects], dtype=torch.float32)
    boxes[:, 2:] += boxes[:, :2] - 1
    labels = torch.tensor([kind % (num_classes - 1) + 1 for kind, _, _ in objects])
    crowd = torch.zeros(len(objects), dtype=torch.bool)
    record = Record(name, f"generated image {name}", *SIZE, boxes, labels, crowd)
    return torch.from_numpy(picture).permute(2, 0, 1), record


def draw_proposals(rng: np.random.Generator, sizes: Tensor) -> Proposals:
    """Random boxes inside images of (height, width) pixels, (N, 2)."""
    corners = np.sort(rng.random((len(sizes), PROPOSALS, 2, 2), dtype=np.float32), axis=2)
    boxes = torch.from_numpy(corners) * (sizes.flip(1)[:, None, None] - 1)
    scores = torch.from_numpy(rng.random((len(sizes), PROPOSALS), dtype=np.float32))
    return Proposals(boxes.flatten(2), scores, torch.ones_like(scores, dtype=torch.bool))
