# SPDX-License-Identifier: Apache-2.0
"""What depends on the number of ground-truth boxes of an image."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from detectron_libra.builders.anchors import anchor_levels, retinanet_anchors
from detectron_libra.builders.data import preparation
from detectron_libra.builders.growth.curve import OBJECTS, Axis, Work
from detectron_libra.builders.growth.detectors import (
    DETECTORS,
    RETINANET,
    Scene,
    config_of,
    draw_boxes,
    draw_targets,
    training_step,
)
from detectron_libra.builders.growth.sets import content_of, index
from detectron_libra.data.batches import arrange, collate
from detectron_libra.data.coco import Record
from detectron_libra.data.plan import Sample
from detectron_libra.modeling.atss import ATSS
from detectron_libra.modeling.detectors.regions import with_ground_truth
from detectron_libra.modeling.matching import match_anchors_retinanet, match_proposals
from detectron_libra.modeling.sampling import InstanceSampling, IoUSampling, RoISampling, sample_rois
from detectron_libra.modeling.slots import DenseOutputs
from detectron_libra.structures import Proposals

BOXES = (1, 10, 100, 300, 1000, 3000, 10_000)
SIDE, IMAGES_OF_A_BATCH = 128, 4
PROPOSALS, TOP_K = 1000, 9
#: As configurations of Faster R-CNN have them.
SAMPLING = RoISampling(128, 0.25, 0.5, 0.5, 0.0, negatives=IoUSampling(), positives=InstanceSampling())
POSITIVE, NEGATIVE, CROWDED = 0.5, 0.4, 0.5


def box_axis() -> Axis:
    """Ground-truth boxes per image."""
    steps = [Work(f"{name}, training step", partial(_step, keys), BOXES) for name, keys in DETECTORS.items()]
    return Axis(
        "boxes",
        "ground-truth boxes per image",
        (
            *steps,
            Work("matching of a RetinaNet's anchors", anchors_by_iou, BOXES),
            Work("matching of anchors by ATSS", anchors_by_atss, BOXES),
            Work("matching and sampling of proposals", proposals, BOXES),
            Work("arranging and collating a batch", batch, BOXES),
            Work("check of the annotations of an image", image_check, BOXES, memory=OBJECTS),
        ),
    )


def anchors_by_iou(boxes: int) -> Callable[[], object]:
    """Matching of RetinaNet's anchors alone."""
    anchors, targets = _outputs().all_anchors, draw_targets(Scene(side=SIDE, boxes=boxes))
    return lambda: match_anchors_retinanet(
        anchors,
        targets,
        positive=POSITIVE,
        negative=NEGATIVE,
        extent=0.0,
        rule="continuous",
        crowd_threshold=CROWDED,
    )


def anchors_by_atss(boxes: int) -> Callable[[], object]:
    """The same by the other assigner."""
    outputs, targets = _outputs(), draw_targets(Scene(side=SIDE, boxes=boxes))
    assign = ATSS(top_k=TOP_K, extent=0.0, crowd_threshold=CROWDED)
    return lambda: assign(outputs, targets)


def proposals(boxes: int) -> Callable[[], object]:
    """What the second stage of a Faster R-CNN learns from, chosen with all of Libra; the ground truth is among it."""
    targets = draw_targets(Scene(side=SIDE, boxes=boxes))
    random = torch.Generator().manual_seed(2)
    found = draw_boxes(PROPOSALS, SIDE, random)[None]
    scores = torch.rand((1, PROPOSALS), generator=random)
    given = Proposals(found, scores, torch.ones_like(scores, dtype=torch.bool))

    def run() -> object:
        joined = with_ground_truth(given, targets)
        match = match_proposals(
            joined.boxes,
            joined.valid,
            targets,
            threshold=POSITIVE,
            extent=0.0,
            rule="continuous",
            crowd_threshold=CROWDED,
            own=boxes,
        )
        return sample_rois(match, SAMPLING)

    return run


def batch(boxes: int) -> Callable[[], object]:
    """What a worker of the loader does once an image is decoded."""
    how = preparation(config_of(RETINANET, 3))
    scene = Scene(side=SIDE, boxes=boxes)
    targets = draw_targets(scene)
    image = torch.zeros((3, SIDE, SIDE), dtype=torch.uint8)
    record = Record(0, "noise", SIDE, SIDE, targets.boxes[0], targets.classes[0], targets.crowd[0])
    sample = Sample(0, SIDE, flip_x=True)
    return lambda: collate(
        [arrange(image, record, sample, how)] * IMAGES_OF_A_BATCH, stride=how.stride, with_targets=True
    )


def image_check(boxes: int) -> Callable[[], object]:
    """What the check does with an image's part of an annotation file."""
    content = content_of(images=1, annotations=boxes, classes=3)
    return lambda: index(content)


def _step(keys: dict, boxes: int) -> Callable[[], object]:
    return training_step(keys, Scene(side=SIDE, boxes=boxes))


def _outputs() -> DenseOutputs:
    """Anchors of an image, and nothing that a network says of them but its form."""
    cfg = config_of(RETINANET, 3)
    levels = anchor_levels(cfg)
    strides = [2**level for level in range(cfg.FPN.RPN_MIN_LEVEL, cfg.FPN.RPN_MAX_LEVEL + 1)]
    sizes = [(-(-SIDE // stride), -(-SIDE // stride)) for stride in strides]
    anchors = retinanet_anchors(cfg, levels)(sizes, torch.device("cpu"))
    per_cell = len(anchors[0]) // (sizes[0][0] * sizes[0][1])
    deltas = [torch.zeros((1, 4 * per_cell, *size)) for size in sizes]
    return DenseOutputs(deltas, deltas, anchors)
