# SPDX-License-Identifier: Apache-2.0
"""A detector on batches: every kind is measured, gradients are those of training, nothing is learned."""

import pytest
import torch

from detectron_libra.analysis.model import measure_model, pyramid_statistics, stage_levels
from detectron_libra.builders.detector import build_detector, loss_weights
from detectron_libra.modeling.sampling import IoUSampling
from tests.builders.small import KINDS, config, libra
from tests.modeling.scenes import batch, targets

FOUND = [
    targets([(8, 8, 60, 70, 1), (40, 20, 90, 60, 3)], [(5, 5, 40, 60, 2)]),
    targets([], [(20, 20, 60, 90, 1)]),
]
BATCHES = [batch([(96, 128), (128, 70)], found, seed=k) for k, found in enumerate(FOUND)]


def measure(cfg, batches=BATCHES):
    torch.manual_seed(1)
    model = build_detector(cfg, 4)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    torch.manual_seed(2)
    found = measure_model(
        model,
        batches,
        count=len(batches),
        device="cpu",
        loss_weights=loss_weights(cfg),
        class_names=("a", "b", "c"),
        extent=1.0,
        sampling=IoUSampling(),
    )
    assert all(torch.equal(before[name], p) and p.grad is None for name, p in model.named_parameters())
    return found


@pytest.mark.parametrize("with_libra", [False, True], ids=["plain", "libra"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_detector_is_measured_and_none_learns(kind, with_libra):
    cfg = (libra if with_libra else config)(kind)
    found = measure(cfg)
    assert found.images == 4 and set(found.parts) == set(loss_weights(cfg))
    assert all(part["gradient_norm"] > 0 for name, part in found.parts.items() if "cls" in name)
    assert (found.feature is None) == (kind == "c4")
    for stage in found.sample.values():
        assert stage["per_instance"]["instances"] == 4
        assert stage["negatives"]["random"]["count"] == stage["negatives"]["hard"]["count"] > 0
    assert found.residuals.dim() == 2 and len(found.residuals) > 0


def test_the_same_seed_gives_the_same_numbers():
    first, second = measure(libra("faster_rcnn")), measure(libra("faster_rcnn"))
    assert (first.sample, first.feature, first.parts) == (second.sample, second.feature, second.parts)
    assert torch.equal(first.residuals, second.residuals)


def test_gradients_are_those_of_the_weighted_loss_by_the_features():
    cfg = config("retinanet", LIBRA__PYRAMID__ON=True, LOSS__WEIGHTS__BBOX=0.5)
    found = measure(cfg, BATCHES[:1])
    torch.manual_seed(1)
    model = build_detector(cfg, 4).train()
    # P7 comes of P6; each level counts by itself
    levels = [level.detach().requires_grad_() for level in model.unbalanced_features(BATCHES[0])]
    losses, _ = model.losses(list(model.balance(levels)), BATCHES[0])
    total = losses["cls"] + 0.5 * losses["bbox"]
    expected = [g.norm().item() for g in torch.autograd.grad(total, levels)]
    got = [one["gradient_before"] for one in found.feature["levels"].values()]
    assert got == pytest.approx(expected, rel=1e-4)
    assert {name: part["loss"] for name, part in found.parts.items()} == {
        name: pytest.approx(loss.item(), rel=1e-4) for name, loss in losses.items()
    }


def test_levels_bear_their_numbers():
    torch.manual_seed(0)
    retinanet = build_detector(config("retinanet"), 4)
    assert stage_levels(retinanet)["anchors"] == (3, 4, 5, 6, 7)
    assert pyramid_statistics(retinanet).refine == 1  # P4
    faster = build_detector(libra("faster_rcnn"), 4)
    assert stage_levels(faster) == {"anchors": (2, 3, 4, 5, 6), "proposals": (2, 3, 4, 5)}
    assert pyramid_statistics(faster).in_model and pyramid_statistics(faster).refine == 2
    assert stage_levels(build_detector(config("c4"), 4)) == {"anchors": (4,), "proposals": (4,)}
