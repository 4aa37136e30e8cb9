# SPDX-License-Identifier: Apache-2.0
"""The slots of the imbalance kit: plain by default, each key puts its part into the detectors, each part learns."""

from dataclasses import replace

import pytest
import torch

from detectron_libra.builders.data import load_train_datasets, train_loader
from detectron_libra.builders.detector import build_detector, loss_weights
from detectron_libra.builders.imbalance import (
    ASSIGNERS,
    BOX_LOSSES,
    DENSE_CLASS_LOSSES,
    IMAGE_SAMPLERS,
    REGION_CLASS_LOSSES,
    counts_of_classes,
    image_sampler,
    switched_on,
)
from detectron_libra.config import KEYS
from detectron_libra.data.image_sampling import RepeatFactor
from detectron_libra.geometry import GEOMETRIES
from detectron_libra.modeling.atss import ATSS
from detectron_libra.modeling.class_losses import CrossEntropyLoss, FocalLoss
from detectron_libra.modeling.class_weights import KINDS as WEIGHT_KINDS
from detectron_libra.modeling.class_weights import class_weights
from detectron_libra.modeling.giou import GIoULoss
from detectron_libra.modeling.losses import SmoothL1Loss
from detectron_libra.modeling.seesaw import SeesawLoss
from detectron_libra.structures import Proposals
from tests.builders.small import config
from tests.modeling.scenes import batch, targets

WEIGHTED = {"LOSS__CLASS_WEIGHTS__KIND": "square_root"}
SEESAW = {"LOSS__CLASSIFIER__KIND": "seesaw"}
ATSS_ON = {"ASSIGNER__KIND": "atss"}
GIOU = {"LOSS__BOX__KIND": "giou"}
REPEATED = {"DATA__SAMPLER__KIND": "repeat_factor", "DATA__SAMPLER__THRESHOLD": "0.5"}
BOTH = ("retinanet", "faster_rcnn")
COUNTS = torch.tensor([100, 25, 4])


def second_part(model):
    """What holds the losses of the final classes and boxes."""
    return getattr(model, "regions", model)


@pytest.mark.parametrize("kind", ["retinanet", "faster_rcnn", "c4", "fast_rcnn"])
def test_a_plain_configuration_has_the_plain_parts_and_no_state_of_a_loss(kind):
    cfg = config(kind)
    model = build_detector(cfg, 4, COUNTS)
    part = second_part(model)
    assert type(part.class_loss) is (FocalLoss if kind == "retinanet" else CrossEntropyLoss)
    assert type(part.box_loss) is SmoothL1Loss and not list(part.class_loss.state_dict())
    rules = [getattr(model, name) for name in ("rule", "rpn_rule") if hasattr(model, name)]
    assert all(rule.assigner is None for rule in rules)
    assert image_sampler(cfg) is None and switched_on(cfg) == [] and counts_of_classes(cfg, []) is None


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("how", ["inverse", "square_root", "effective_number"])
def test_class_weights_come_from_the_counts_or_are_one_until_a_checkpoint_brings_them(kind, how):
    cfg = config(kind, LOSS__CLASS_WEIGHTS__KIND=how, LOSS__CLASS_WEIGHTS__BETA=0.9)
    trained = second_part(build_detector(cfg, 4, COUNTS)).class_loss
    torch.testing.assert_close(trained.class_weight, class_weights(COUNTS, how, beta=0.9))
    assert second_part(build_detector(cfg, 4)).class_loss.class_weight.tolist() == [1, 1, 1]
    assert switched_on(cfg) == [f"class weights {how}"]


def test_seesaw_has_the_numbers_of_its_keys():
    loss = build_detector(config("faster_rcnn", **SEESAW, LOSS__CLASSIFIER__P=0.5), 4).regions.class_loss
    assert isinstance(loss, SeesawLoss) and (loss.num_classes, loss.p, loss.q) == (3, 0.5, 2.0)


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("kind", BOTH)
def test_boxes_and_anchors_keep_the_geometry(kind, geometry):
    changes = {**GIOU, **ATSS_ON, "ASSIGNER__TOP_K": 5, "MODEL__BOX_GEOMETRY": geometry}
    model = build_detector(config(kind, **changes, BBOX_XFORM_CLIP=3.0), 4)
    loss = second_part(model).box_loss
    assert isinstance(loss, GIoULoss) and loss.clip == 3.0
    assert loss.clip_shrinking == GEOMETRIES[geometry].clip_shrinking
    assigner = (model.rule if kind == "retinanet" else model.rpn_rule).assigner
    assert assigner == ATSS(5, GEOMETRIES[geometry].extent, None if geometry == "detectron" else 0.5)
    assert not hasattr(model, "rpn_box_loss") or type(model.rpn_box_loss) is SmoothL1Loss


def test_the_sampler_has_its_threshold():
    assert image_sampler(config("retinanet", **REPEATED)) == RepeatFactor(0.5)


def test_every_name_of_a_slot_makes_something():
    """A name in the schema that no dict has would be an error of ours at a user's desk."""
    assert set(KEYS["DATA.SAMPLER.KIND"].choices) == set(IMAGE_SAMPLERS)
    assert set(KEYS["ASSIGNER.KIND"].choices) == set(ASSIGNERS)
    assert set(KEYS["LOSS.BOX.KIND"].choices) == set(BOX_LOSSES)
    assert set(KEYS["LOSS.CLASSIFIER.KIND"].choices) == set(DENSE_CLASS_LOSSES) | set(REGION_CLASS_LOSSES)
    assert set(KEYS["LOSS.CLASS_WEIGHTS.KIND"].choices) == set(WEIGHT_KINDS) | {"none"}


def learning(kind, folder, changes, steps=40):
    """Losses of a short training on generated shapes, the rarest of three classes a ninth as frequent."""
    shapes = (
        f'{{"few": {{"SHAPES": {{"IMAGES": 24, "SIZE": [64, 64], "IMBALANCE": 3.0}}, "DIR": "{folder}"}}}}'
    )
    cfg = config(
        kind,
        **changes,
        DATASETS=shapes,
        TRAIN__DATASETS="('few',)",
        TRAIN__SCALES="(64,)",
        TRAIN__MAX_SIZE=64,
        TRAIN__IMS_PER_BATCH=4,
        TRAIN__FREEZE_AT=0,
        RESNETS__NORM="batch",
        DATA__WORKERS=0,
        SOLVER__MAX_ITER=steps,
        MODEL__BOX_GEOMETRY="continuous",
        FPN__COARSEST_STRIDE=64,
    )
    datasets = load_train_datasets(cfg)
    torch.manual_seed(0)
    model = build_detector(cfg, 4, counts_of_classes(cfg, datasets)).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-3)
    factors, found = loss_weights(cfg), []
    for images in train_loader(cfg, datasets, start_iteration=0, pin_memory=False):
        losses, _ = model(images)
        optimizer.zero_grad()
        sum(factors[name] * value for name, value in losses.items()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        found.append({name: value.item() for name, value in losses.items()})
    return model, found


@pytest.mark.parametrize(
    ("kind", "changes", "parts"),
    [
        ("retinanet", REPEATED, ("cls", "bbox")),
        ("retinanet", WEIGHTED, ("cls",)),
        ("faster_rcnn", WEIGHTED, ("cls",)),
        ("faster_rcnn", SEESAW, ("cls",)),
        ("retinanet", ATSS_ON, ("cls", "bbox")),
        ("faster_rcnn", ATSS_ON, ("rpn_cls",)),
        ("retinanet", {**REPEATED, **WEIGHTED, **ATSS_ON, **GIOU}, ("cls",)),
    ],
    ids=[
        "retinanet-repeat_factor",
        "retinanet-class_weights",
        "faster_rcnn-class_weights",
        "faster_rcnn-seesaw",
        "retinanet-atss",
        "faster_rcnn-atss",
        "retinanet-all",
    ],
)
def test_each_part_learns_on_generated_shapes(tmp_path, kind, changes, parts):
    """The losses that the part has to do with fall by a quarter at least within forty steps."""
    model, found = learning(kind, tmp_path, changes)
    for part in parts:
        first, last = (sum(step[part] for step in steps) for steps in (found[:5], found[-5:]))
        assert last < 0.75 * first, (part, first / 5, last / 5)
    loss = second_part(model).class_loss
    if isinstance(loss, SeesawLoss):
        assert loss.counts[0] > loss.counts[2] > 0
    if changes is WEIGHTED:
        assert loss.class_weight[0] < loss.class_weight[1] < loss.class_weight[2]


def around(boxes, count=60):
    """Stored proposals that miss the boxes (N, G, 4) by up to a fifth of their sides."""
    generator = torch.Generator().manual_seed(1)
    near = boxes.repeat(1, count // boxes.shape[1], 1)
    sides = (near[..., 2:] - near[..., :2]).repeat(1, 1, 2)
    near = near + 0.2 * sides * (2 * torch.rand(near.shape, generator=generator) - 1)
    return Proposals(near, torch.ones(near.shape[:2]), torch.ones(near.shape[:2], dtype=torch.bool))


@pytest.mark.parametrize("geometry", ["detectron", "continuous"])
@pytest.mark.parametrize(("kind", "factor", "steps"), [("retinanet", 2, 40), ("fast_rcnn", 10, 80)])
def test_boxes_are_learned_by_generalised_iou(kind, factor, steps, geometry):
    """Two images again and again: what the boxes lack falls by a quarter at least."""
    found = targets([(8, 8, 60, 70, 1), (40, 20, 110, 100, 3)], [(5, 5, 70, 60, 2), (30, 50, 120, 118, 1)])
    images = replace(batch([(128, 128)] * 2, found), proposals=around(found.boxes))
    cfg = config(kind, **GIOU, MODEL__BOX_GEOMETRY=geometry, RESNETS__NORM="batch", TRAIN__FREEZE_AT=0)
    torch.manual_seed(0)
    model, values = build_detector(cfg, 4).train(), []
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(steps):
        losses, _ = model(images)
        optimizer.zero_grad()
        (losses["cls"] + factor * losses["bbox"]).backward()
        optimizer.step()
        values.append(losses["bbox"].item())
    assert sum(values[-5:]) < 0.75 * sum(values[:5]), (values[:5], values[-5:])
