# SPDX-License-Identifier: Apache-2.0
"""What is built, on what it works, and what is made of it."""

import pytest
import torch

from detectron_libra.benchmarks.measure import Times
from detectron_libra.builders.benchmark import plan, result, run
from detectron_libra.builders.benchmark.ours import build_ours
from detectron_libra.builders.benchmark.peak import Peak
from detectron_libra.builders.benchmark.plan import Ask, Contender, Order, Size, contenders, usual_size
from detectron_libra.builders.benchmark.ranges import SHARES
from detectron_libra.builders.benchmark.scene import as_batch, draw_scene
from detectron_libra.builders.benchmark.their_model import require_counterpart
from detectron_libra.builders.benchmark.turns import Measured
from detectron_libra.builders.benchmark.worker import Worker
from detectron_libra.config import with_values
from detectron_libra.errors import UsageError
from detectron_libra.ops import backend
from tests.builders.small import KINDS, config

#: The process of the tests is left as it is.
CALM = {"CPU__TUNE_MALLOC": False, "CPU__FLUSH_DENORMAL": False, "DEVICE": "cpu"}


def order(kind="retinanet", mode="train", precision="fp32", **changes):
    who = Contender(plan.OURS, mode, precision)
    return Order(config(kind, **CALM, **changes), who, Size(64, 90), 2, 3, 32)


@pytest.fixture(autouse=True)
def same_backend():
    name = backend.get_backend()
    yield
    backend.set_backend(name)


@pytest.mark.parametrize("mode", plan.MODES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_detector_runs_and_its_parts_are_found(kind, mode):
    worker = Worker(order(kind, mode))
    assert worker.turn(1) > 0
    found = worker.profiled(5, None)
    shares = found["shares"]
    assert tuple(shares) == SHARES and sum(shares.values()) == pytest.approx(1)
    assert min(shares.values()) >= 0 and shares["data"] < 0.01 and shares["backbone"] > 0
    wanted = {"heads", "matching", "losses", "optimizer"} if mode == "train" else {"heads", "postprocess"}
    if kind == "rpn_only" and mode == "test":
        wanted -= {"postprocess"}
    assert {name for name in wanted if shares[name] > 0} == wanted
    assert shares["optimizer"] == 0 or mode == "train"
    counts = worker.counts()
    assert counts["loss"] > 0 if mode == "train" else counts["detections"] >= 0


def test_the_reference_backend_is_a_contender_and_computes_the_same():
    ours, reference = order(), order()
    reference = Order(**{**vars(reference), "contender": Contender(plan.REFERENCE, "train", "fp32")})
    losses = []
    for one in (ours, reference):
        subject = build_ours(one)
        assert backend.get_backend() == ("auto" if one is ours else "reference")
        subject.step()
        losses.append(subject.counts()["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_bf16_is_what_runs():
    full, low = (build_ours(order(precision=precision)) for precision in plan.PRECISIONS)
    for subject in (full, low):
        subject.step()
    a, b = full.counts()["loss"], low.counts()["loss"]
    assert a != b and a == pytest.approx(b, rel=0.05)


def test_the_weights_stay_what_they_are():
    subject = build_ours(order())
    losses = []
    for _ in range(9):  # the batches come again
        subject.step()
        losses.append(subject.counts()["loss"])
    assert losses[0] == pytest.approx(losses[4], rel=1e-5) == pytest.approx(losses[8], rel=1e-5)
    assert losses[0] != losses[1]


def test_boxes_are_inside_of_the_image_and_it_is_padded_with_zeros():
    one = order()
    scene = draw_scene(0, images=2, size=one.size, boxes=3, num_classes=4)
    assert (scene.boxes[..., 2:] > scene.boxes[..., :2]).all() and scene.boxes.min() >= 0
    assert (scene.boxes[..., 2] <= 90).all() and (scene.boxes[..., 3] <= 64).all()
    assert set(scene.classes.flatten().tolist()) <= {1, 2, 3}
    batch = as_batch(one, scene)
    assert batch.images.shape == (2, 3, 64, 96) and batch.sizes.tolist() == [[64, 90]] * 2
    assert batch.images[..., 90:].eq(0).all() and torch.equal(batch.images[..., :90], scene.images.float())
    assert torch.equal(batch.targets.boxes[..., 2:], scene.boxes[..., 2:] - 1)  # geometry: the last pixel


def test_sizes_follow_the_scales():
    cfg = config(
        "retinanet", TRAIN__SCALES="(640, 800)", TRAIN__MAX_SIZE=1333, TEST__SCALE=320, TEST__MAX_SIZE=320
    )
    assert usual_size(cfg, "train") == (800, 1067) and usual_size(cfg, "test") == (320, 320)
    assert usual_size(cfg, "train").padded(32) == (800, 1088)


def test_a_note_where_batches_of_data_are_padded_further():
    cfg = config("retinanet", FPN__COARSEST_STRIDE=128)
    ask = Ask(cfg, size=Size(320, 320))
    assert "to 320x320; FPN.COARSEST_STRIDE 128 pads those of data to 384x384" in run.padding(ask, "train")
    assert run.padding(Ask(cfg, size=Size(256, 384)), "train") == ""


def measured(impl, precision, seconds, peak, mode="train"):
    one = Order(config("retinanet"), Contender(impl, mode, precision), Size(320, 320), 2, 8, 32)
    profile = {"shares": dict.fromkeys(SHARES, 0.0) | {"other": 1.0}, "parts": {}, "profiled_step_s": 1.0}
    return Measured(one, Times(seconds), (peak, "peak"), profile, {}, {"threads": 1, "settings": ""})


def test_ratios_are_taken_pair_by_pair():
    found = [
        measured(plan.OURS, "fp32", [1.0, 2.0, 4.0], 100),
        measured(plan.OURS, "bf16", [0.5, 1.0, 2.0], 50),
        measured(plan.TORCHVISION, "fp32", [2.0, 4.0, 12.0], 200),
        measured(plan.TORCHVISION, "bf16", [1.5, 3.0, 6.0], 150),
    ]
    pairs = {(r["ours"], r["peer_precision"]): r for r in result.ratios(found)}
    assert set(pairs) == {("fp32", "fp32"), ("bf16", "fp32"), ("bf16", "bf16")}
    assert pairs["fp32", "fp32"]["pairs"] == [2, 2, 3] and pairs["fp32", "fp32"]["speed"] == 2
    assert pairs["bf16", "fp32"]["speed"] == 4 and pairs["bf16", "bf16"]["speed"] == 3
    assert [key for key, r in pairs.items() if r["headline"]] == [("bf16", "fp32")]
    assert pairs["bf16", "fp32"]["memory"] == 4
    row = result.row(found[0])
    assert row["images_per_s"] == 1 and row["step_s"] == 2 and row["peak_bytes"] == 100


def test_what_is_unsteady_is_told():
    steady, shaky = (measured(plan.OURS, "fp32", s, 1) for s in ([1.0, 1.01, 1.02], [1.0, 1.5, 2.0]))
    assert list(result.warnings([result.row(steady)], [])) == []
    steady.profile["profiled_step_s"] = 2.0
    assert "2.0 times as long" in next(iter(result.warnings([result.row(steady)], [])))
    assert "33% of the median" in next(iter(result.warnings([result.row(shaky)], [])))


def test_without_torchvision_the_reference_is_the_peer_and_that_is_said(monkeypatch):
    ask = Ask(config("retinanet"), peer=plan.TORCHVISION, tuned=True, precisions=plan.PRECISIONS)
    monkeypatch.setattr(plan, "torchvision", lambda: (None, "torchvision cannot be loaded (why)"))
    who, why = contenders(ask, "train")
    assert [c.impl for c in who] == [plan.OURS] * 2 + [plan.REFERENCE] * 2
    assert why.startswith("torchvision cannot be loaded (why): compared with the project's own reference")
    monkeypatch.setattr(plan, "torchvision", lambda: (object(), "torchvision 1"))
    who, why = contenders(ask, "train")
    assert [c.impl for c in who] == [i for i in (plan.OURS, plan.TORCHVISION, plan.TUNED) for _ in range(2)]
    assert why == ""


def test_torchvision_has_a_counterpart_or_the_key_is_told():
    plain = {"RESNETS.WIDTH": 64, "RETINANET.NUM_CONVS": 4}
    require_counterpart(with_values(config("retinanet"), plain))
    require_counterpart(with_values(config("faster_rcnn"), {"RESNETS.WIDTH": 64}))
    faults = {
        "RETINANET.NUM_CONVS: 1": {"RESNETS.WIDTH": 64},
        "RESNETS.WIDTH: 8": {"RETINANET.NUM_CONVS": 4},
        "RETINANET.HEAD_NORM: group": plain | {"RETINANET.HEAD_NORM": "group"},
    }
    for message, values in faults.items():
        with pytest.raises(UsageError, match=message):
            require_counterpart(with_values(config("retinanet"), values))


def test_the_peak_is_what_was_held_while_it_worked():
    peak = Peak("cpu")
    before = torch.ones(50_000_000)  # 200 MB
    del before
    peak.begin()
    held = torch.ones(25_000_000)
    assert held.sum() > 0
    assert 95e6 < peak.bytes < 180e6, peak.how
