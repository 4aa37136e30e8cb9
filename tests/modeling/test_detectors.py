# SPDX-License-Identifier: Apache-2.0
"""Whole detectors: losses and detections for any batch, gradients where they belong, images apart."""

from dataclasses import replace

import pytest
import torch

from detectron_libra.builders.detector import build_detector
from detectron_libra.modeling.detectors import regions
from detectron_libra.structures import Proposals
from tests.builders.small import KINDS, config, libra
from tests.modeling.scenes import batch, targets

LOSSES = {
    "retinanet": {"cls", "bbox"},
    "faster_rcnn": {"cls", "bbox", "rpn_cls", "rpn_bbox"},
    "c4": {"cls", "bbox", "rpn_cls", "rpn_bbox"},
    "rpn_only": {"rpn_cls", "rpn_bbox"},
    "fast_rcnn": {"cls", "bbox"},
}
ONE = targets([(8, 8, 60, 70, 1), (40, 20, 120, 110, 3)])
THREE = targets([(8, 8, 60, 70, 1), (40, 20, 90, 60, 3)], [(5, 5, 40, 60, 2)], [])
SIZES = [(96, 128), (128, 70), (64, 64)]


def build(kind, cfg=None):
    torch.manual_seed(1)
    return build_detector(cfg or config(kind), 4)


def losses_of(model, b):
    torch.manual_seed(2)
    return model.train()(b)


@pytest.mark.parametrize("geometry", ["detectron", "continuous"])
@pytest.mark.parametrize("with_libra", [False, True], ids=["plain", "libra"])
@pytest.mark.parametrize("kind", KINDS)
def test_one_image_and_three_of_other_sizes_train_and_test(kind, with_libra, geometry):
    model = build(kind, (libra if with_libra else config)(kind, MODEL__BOX_GEOMETRY=geometry))
    for sizes, found in [([(128, 128)], ONE), (SIZES, THREE)]:
        losses, metrics = losses_of(model, batch(sizes, found))
        assert set(losses) == LOSSES[kind]
        for value in (losses | metrics).values():
            assert value.dim() == 0 and value.isfinite()
        detections = model.eval()(batch(sizes))
        assert len(detections) == len(sizes)
        for d, (height, width) in zip(detections, sizes, strict=True):
            assert (d.scores[:-1] >= d.scores[1:]).all() and d.boxes.isfinite().all()
            assert d.classes.numel() == 0 or 1 <= d.classes.min() <= d.classes.max() <= 3
            assert kind != "rpn_only" or (d.classes == 1).all()
            assert (d.boxes >= 0).all() and (d.boxes <= torch.tensor([width, height, width, height])).all()


@pytest.mark.parametrize("with_libra", [False, True], ids=["plain", "libra"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_part_that_is_not_frozen_gets_a_gradient(kind, with_libra):
    # Anchors of the coarse levels leave a small image, and its boxes are too small for the coarse levels' share.
    every = {"TRAIN__RPN_STRADDLE_THRESH": -1, "TRAIN__RPN_BATCH_SIZE_PER_IM": 8192}
    every["FPN__ROI_CANONICAL_SCALE"] = 56
    model = build(kind, (libra if with_libra else config)(kind, LIBRA__PYRAMID__INIT="xavier", **every))
    losses, _ = losses_of(model, batch([(128, 128)], ONE))
    sum(losses.values()).backward()
    trained = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
    silent = {n for n, grad in trained.items() if grad is None or not grad.any()}
    # A softmax does not see the bias of phi.
    assert silent <= {"balance.refine.phi.bias"}
    assert all(p.grad is None for p in model.parameters() if not p.requires_grad)


@pytest.mark.parametrize("with_libra", [False, True], ids=["plain", "libra"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "found", [targets([], []), targets([(0, 0, 90, 90, 1, True)], [])], ids=["none", "crowd"]
)
def test_nothing_to_find_is_a_finite_loss_and_no_gradient_of_boxes(kind, with_libra, found):
    model = build(kind, (libra if with_libra else config)(kind, MODEL__BOX_GEOMETRY="continuous"))
    losses, metrics = losses_of(model, batch([(128, 128), (96, 96)], found))
    sum(losses.values()).backward()
    bbox, foreground = ("rpn_bbox", "rpn_fg") if kind == "rpn_only" else ("bbox", "num_fg")
    assert all(v.isfinite() for v in losses.values()) and losses[bbox] == 0 and metrics[foreground] == 0
    if kind == "rpn_only":
        box = model.rpn.deltas
    else:
        box = model.head.box_pred if kind == "retinanet" else model.regions.predictor.bbox_pred
    assert not box.weight.grad.any()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("kind", KINDS)
def test_padding_of_the_ground_truth_changes_nothing(kind):
    model = build(kind)
    padded = targets([(8, 8, 60, 70, 1), (40, 20, 120, 110, 3)], [(0, 0, 0, 0, 0)] * 4)
    padded = replace(padded, boxes=padded.boxes[:1], classes=padded.classes[:1], crowd=padded.crowd[:1])
    model.train()
    # The keys of the sample are drawn per row: with all proposals sampled they do not matter.
    if hasattr(model, "regions"):
        model.regions.sampling = replace(model.regions.sampling, batch_size=100, fg_fraction=0.5)
    if hasattr(model, "rpn_rule"):
        model.rpn_rule = replace(model.rpn_rule, batch_size=10**4, assignment="continuous")
    a, _ = losses_of(model, batch([(128, 128)], ONE))
    b, _ = losses_of(model, batch([(128, 128)], padded))
    for name in a:
        torch.testing.assert_close(a[name], b[name])


@pytest.mark.parametrize("kind", KINDS)
def test_detections_of_an_image_do_not_depend_on_its_neighbours(kind):
    model = build(kind).eval()
    images = batch([(128, 128), (128, 128)], scales=[1.0, 2.0])
    together = model(images)
    for n in range(2):
        part = replace(
            images,
            images=images.images[n : n + 1],
            sizes=images.sizes[n : n + 1],
            metas=images.metas[n : n + 1],
            scales=images.scales[n : n + 1],
            proposals=Proposals(*(t[n : n + 1] for t in vars(images.proposals).values())),
        )
        (alone,) = model(part)
        assert len(alone) == len(together[n])
        torch.testing.assert_close(together[n].boxes, alone.boxes, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_losses(kind):
    model = build(kind, libra(kind))
    first, second = (losses_of(model, batch(SIZES, THREE))[0] for _ in range(2))
    assert {k: v.item() for k, v in first.items()} == {k: v.item() for k, v in second.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_a_few_steps_lower_the_loss(kind):
    """The parts are joined the right way round: what is trained is what the losses look at."""
    model = build(
        kind, libra(kind, TRAIN__FREEZE_AT=0, RESNETS__NORM="group", MODEL__BOX_GEOMETRY="continuous")
    )
    b = batch([(128, 128)], ONE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    history = []
    for _ in range(12):
        losses, _ = losses_of(model, b)
        history.append(sum(losses.values()))
        optimizer.zero_grad()
        history[-1].backward()
        optimizer.step()
    assert history[-1] < 0.7 * history[0]


def test_ground_truth_is_a_proposal_in_training_and_crowds_and_padding_are_not():
    found = targets([(0, 0, 10, 10, 1), (5, 5, 20, 20, 2, True)], [])
    proposals = Proposals(torch.zeros(2, 3, 4), torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.bool))
    joined = regions.with_ground_truth(proposals, found)
    assert joined.valid.tolist() == [[True, True, True, True, False], [True, True, True, False, False]]
    torch.testing.assert_close(joined.boxes[0, 3], torch.tensor([0.0, 0, 10, 10]))


@pytest.mark.parametrize("geometry", ["detectron", "continuous"])
def test_the_second_stage_matches_in_the_original_image(geometry, monkeypatch):
    """Detectron divides proposals by the scale before it compares them; features are cut out unscaled."""
    model = build("faster_rcnn", config("faster_rcnn", MODEL__BOX_GEOMETRY=geometry)).train()
    seen = {}

    def match(boxes, valid, found, **options):
        seen["boxes"], seen["found"] = boxes, found.boxes
        return original(boxes, valid, found, **options)

    original = regions.match_proposals
    monkeypatch.setattr(regions, "match_proposals", match)
    model(batch([(128, 128)], ONE, scales=[2.0]))
    torch.testing.assert_close(seen["found"], ONE.boxes / 2)
    torch.testing.assert_close(seen["boxes"][:, -2:], ONE.boxes / 2)
    assert (seen["boxes"] <= 64).all()


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_autocast_keeps_losses_in_float32(kind):
    model = build(kind, libra(kind)).train()
    with torch.autocast("cpu", torch.bfloat16):
        losses, _ = losses_of(model, batch(SIZES, THREE))
    assert all(v.dtype == torch.float32 and v.isfinite() for v in losses.values())


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_on_no_device_is_built(kind):
    """Counting parameters and planning memory need no weights."""
    with torch.device("meta"):
        assert next(build_detector(libra(kind), 4).parameters()).is_meta
