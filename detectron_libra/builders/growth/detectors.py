# SPDX-License-Identifier: Apache-2.0
"""Small detectors, and batches of noise with any number of boxes, for whole steps of training and test."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from detectron_libra.builders import session
from detectron_libra.builders.check import calmed
from detectron_libra.builders.detector import build_detector, loss_weights
from detectron_libra.builders.solver import build_solver
from detectron_libra.config import Config
from detectron_libra.config.load import with_values
from detectron_libra.engine.guard import Guard
from detectron_libra.engine.optim import set_lr
from detectron_libra.engine.step import train_step
from detectron_libra.structures import Batch, ImageMeta, Targets

LR = 1e-4
#: Sides of boxes as shares of the image's.
SMALLEST, LARGEST = 0.05, 0.5
#: All of Libra but the attention, which has a row of its own; in a test every score is a candidate, up to the limits.
COMMON: dict[str, Any] = {
    "DEVICE": "cpu",
    "CPU.THREADS": 1,
    "MODEL.BOX_GEOMETRY": "continuous",
    "FPN.FPN_ON": True,
    "FPN.MULTILEVEL_RPN": True,
    "FPN.COARSEST_STRIDE": 16,
    "FPN.DIM": 32,
    "RESNETS.STAGE_BLOCKS": [1, 1, 1, 1],
    "RESNETS.WIDTH": 16,
    "RESNETS.NORM": "batch",
    "MODEL.CONV_BODY": "FPN.add_fpn_resnet36_tiny_conv5_body",
    "TRAIN.FREEZE_AT": 0,
    "LIBRA.PYRAMID.ON": True,
    "LIBRA.PYRAMID.REFINE": "conv",
    "LIBRA.BALANCED_L1.ON": True,
    "LIBRA.IOU_SAMPLING.ON": True,
}
RETINANET = COMMON | {
    "MODEL.TYPE": "retinanet",
    "RETINANET.RETINANET_ON": True,
    "RETINANET.NUM_CONVS": 1,
    "RETINANET.HEAD_NORM": "group",
    "RETINANET.INFERENCE_TH": 0.0,
    "FPN.RPN_MIN_LEVEL": 3,
    "FPN.RPN_MAX_LEVEL": 7,
    "FPN.EXTRA_CONV_LEVELS": True,
    "LIBRA.IOU_SAMPLING.NEGATIVES_PER_IM": 1000,
}
FASTER_RCNN = COMMON | {
    "MODEL.TYPE": "generalized_rcnn",
    "MODEL.FASTER_RCNN": True,
    "FPN.MULTILEVEL_ROIS": True,
    "FPN.RPN_MIN_LEVEL": 2,
    "FPN.RPN_MAX_LEVEL": 6,
    "FAST_RCNN.ROI_BOX_HEAD": "fast_rcnn_heads.add_roi_2mlp_head",
    "FAST_RCNN.MLP_HEAD_DIM": 64,
    "FAST_RCNN.ROI_XFORM_METHOD": "RoIAlign",
    "FAST_RCNN.ROI_XFORM_RESOLUTION": 7,
    "FAST_RCNN.ROI_XFORM_SAMPLING_RATIO": 2,
    "LIBRA.INSTANCE_SAMPLING.ON": True,
    "TRAIN.BATCH_SIZE_PER_IM": 64,
    "TRAIN.RPN_PRE_NMS_TOP_N": 200,
    "TRAIN.RPN_POST_NMS_TOP_N": 200,
    "TEST.RPN_PRE_NMS_TOP_N": 200,
    "TEST.RPN_POST_NMS_TOP_N": 50,
    "TEST.SCORE_THRESH": 0.0,
}
DETECTORS = {"RetinaNet": RETINANET, "Faster R-CNN": FASTER_RCNN}


@dataclass(frozen=True)
class Scene:
    """What one step works on.

    Attributes:
        side: of the square images, in pixels.
        images: N.
        boxes: G of each image.
        classes: C - 1, without background.
    """

    side: int = 128
    images: int = 1
    boxes: int = 8
    classes: int = 3


def training_step(keys: dict[str, Any], scene: Scene) -> Callable[[], object]:
    """A whole training step of a detector with random weights, on the same batch each time."""
    cfg, model = _detector(keys, scene)
    model.train()
    optimizer, _ = build_solver(cfg, model)
    guard, weights, iterations = Guard(optimizer), loss_weights(cfg), itertools.count()
    set_lr(optimizer, LR)
    batch = draw_batch(scene)
    return lambda: train_step(
        model,
        batch,
        optimizer,
        guard,
        iteration=next(iterations),
        lr=LR,
        loss_weights=weights,
        clip_grad_norm=cfg.TRAIN.CLIP_GRAD_NORM,
    )


def test_step(keys: dict[str, Any], scene: Scene) -> Callable[[], object]:
    """Detections of a batch."""
    _, model = _detector(keys, scene)
    model.eval()
    batch = draw_batch(scene)
    return torch.inference_mode()(lambda: model(batch))


def draw_batch(scene: Scene) -> Batch:
    """Noise, and boxes anywhere in it."""
    random = torch.Generator().manual_seed(0)
    shape = (scene.images, 3, scene.side, scene.side)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=random)
    sizes = torch.full((scene.images, 2), scene.side)
    metas = tuple(ImageMeta(k, f"noise {k}", scene.side, scene.side, scale=1.0) for k in range(scene.images))
    return Batch(pixels, sizes, draw_targets(scene), metas)


def draw_targets(scene: Scene) -> Targets:
    """G boxes in each of N images."""
    random = torch.Generator().manual_seed(1)
    boxes = draw_boxes(scene.images * scene.boxes, scene.side, random).view(scene.images, scene.boxes, 4)
    classes = torch.randint(1, scene.classes + 1, boxes.shape[:2], generator=random)
    return Targets(boxes, classes, torch.zeros_like(classes, dtype=torch.bool))


def draw_boxes(count: int, side: int, random: torch.Generator) -> torch.Tensor:
    """(count, 4) float32, x1 y1 x2 y2 in a square of ``side`` pixels."""
    sides = SMALLEST + (LARGEST - SMALLEST) * torch.rand((count, 2), generator=random)
    corners = (1 - sides) * torch.rand((count, 2), generator=random)
    return side * torch.cat([corners, corners + sides], -1)


def config_of(keys: dict[str, Any], classes: int) -> Config:
    """The configuration of a detector of so many classes, without background."""
    return with_values(Config(), keys | {"MODEL.NUM_CLASSES": classes + 1})


def _detector(keys: dict[str, Any], scene: Scene) -> tuple[Config, torch.nn.Module]:
    cfg = config_of(keys, scene.classes)
    session.seed(cfg.RNG_SEED)
    model = calmed(build_detector(cfg, cfg.MODEL.NUM_CLASSES))
    return cfg, session.place(cfg, model, torch.device("cpu"))
