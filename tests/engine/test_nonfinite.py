# SPDX-License-Identifier: Apache-2.0
"""TRAIN.ON_NONFINITE: a bad step is written down, and is left out, or the run goes back, or it ends."""

import json
import os

import pytest
import torch

from detectron_libra.engine import checkpoint, replay, rollback
from detectron_libra.engine.guard import Guard, NonFinite
from detectron_libra.engine.locate import watched
from detectron_libra.engine.optim import build_optimizer
from detectron_libra.engine.step import losses_of, train_step
from detectron_libra.engine.train import changing
from detectron_libra.errors import InputError
from tests.engine.toy import CLASS_NAMES, Data, Toy, run


class Spoiled(Data):
    """Batches of the iterations ``bad`` have an image that is no number."""

    def __init__(self, start, end, bad):
        super().__init__(start, end)
        self.bad = bad

    def batch(self, iteration):
        batch = super().batch(iteration)
        if iteration not in self.bad:
            return batch
        images = batch.images.float()
        images[1, 0, 2, 2] = float("nan")
        return type(batch)(images, batch.sizes, batch.targets, batch.metas)


def weights(folder, iteration):
    return checkpoint.load(checkpoint.path_of(folder, iteration))


def bits(value):
    """Every number of nested containers, as something that is equal only when the bits are."""
    if torch.is_tensor(value):
        return value.dtype, tuple(value.shape), value.contiguous().numpy().tobytes()
    if isinstance(value, dict):
        return {k: bits(v) for k, v in value.items()}
    return [bits(v) for v in value] if isinstance(value, (list, tuple)) else repr(value)


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_skip_leaves_weights_momentum_and_statistics_as_they_were(tmp_path):
    run(tmp_path, loader=Spoiled(0, 8, {7}), max_iter=8, on_nonfinite="skip", snapshot_period=7)
    before, after = weights(tmp_path, 6), weights(tmp_path, 7)
    assert bits(before["model"]) == bits(after["model"])
    assert bits(before["optimizer"]["state"]) == bits(after["optimizer"]["state"])


def test_running_statistics_are_put_back():
    """A normalisation takes the bad numbers in while the model runs, before anybody can look at the loss."""

    class Normed(Toy):
        def __init__(self):
            super().__init__()
            self.norm = torch.nn.BatchNorm2d(4)

    model, told = Normed().train(), []
    optimizer = build_optimizer(model, lr=0.1)
    guard = Guard(optimizer, on_bad=told.append, buffers=changing(model))
    settings = {"lr": 0.1, "loss_weights": {"cls": 1.0, "bbox": 1.0}}
    data = Spoiled(0, 3, {1})
    for iteration in range(2):
        before = bits(model.state_dict())
        train_step(model, data.batch(iteration), optimizer, guard, iteration=iteration, **settings)
    assert [step.iteration for step in told] == [1]
    assert bits(model.state_dict()) == before
    train_step(model, data.batch(2), optimizer, guard, iteration=2, **settings)
    assert all(v.isfinite().all() for v in model.state_dict().values())


def test_skipped_steps_are_counted_and_the_run_reaches_its_end(tmp_path, caplog):
    path = run(tmp_path, loader=Spoiled(0, 24, {3, 11, 12}), on_nonfinite="skip", nonfinite_limit=2)
    assert path.exists()
    skipped = [line for line in lines(tmp_path) if "skipped" in line]
    assert [(line["iter"], line["skipped"]) for line in skipped] == [(3, 1), (11, 2), (12, 3)]
    assert all(line["losses"] == {"cls": None, "bbox": None} for line in skipped)
    assert "number 3 of this run" in caplog.text and "image_23.jpg" in caplog.text
    assert all(line["loss"] is not None for line in lines(tmp_path) if "loss" in line), (
        "medians of what is finite"
    )


def test_too_many_skips_in_a_row_stop_the_run(tmp_path):
    with pytest.raises(NonFinite, match="iteration 9 .*2 steps before were left out.*NONFINITE_LIMIT"):
        run(tmp_path, loader=Spoiled(0, 24, range(7, 24)), on_nonfinite="skip", nonfinite_limit=2)
    assert checkpoint.latest(tmp_path).next_iteration == 5


def test_few_batches_are_written_however_many_are_bad(tmp_path):
    run(tmp_path, loader=Spoiled(0, 24, range(0, 24, 2)), on_nonfinite="skip")
    written = sorted(p.name for p in tmp_path.glob("nonfinite_*"))
    assert written == [f"nonfinite_iter{i}.pt" for i in (0, 2, 4, 6)]


def test_a_disk_that_refuses_the_batch_hides_nothing(tmp_path, monkeypatch, caplog):
    def full(path, state):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(NonFinite, match="iteration 3 .*image_7.jpg"):
        run(tmp_path, loader=Spoiled(0, 24, {3}))
    assert "the batch is not kept" in caplog.text and os.listdir(tmp_path) == ["metrics.jsonl"]


def test_the_file_repeats_the_step_bit_for_bit(tmp_path):
    """Weights, random state and batch are those of the step: the same losses, dropout included."""
    with pytest.raises(NonFinite, match="replay_batch.py .*nonfinite_iter7.pt"):
        run(tmp_path, loader=Spoiled(0, 24, {7}))
    again = replay.load(replay.path_of(tmp_path, 7))
    assert again.state["files"] == ["image_14.jpg", "image_15.jpg"]
    assert bits(again.state["model"]) == bits(stopped_after_seven(tmp_path / "whole")["model"])
    model = Toy().train()
    model.load_state_dict(again.state["model"])
    first = Spoiled(0, 1, ()).batch(7)  # without the bad pixel the losses are numbers that can be compared
    totals = []
    for _ in range(2):
        replay.restore_random_state(again.state)
        totals.append(losses_of(model, first, {"cls": 1.0, "bbox": 0.5}, "fp32")[2].item())
    assert totals[0] == totals[1]
    assert bits(again.batch.images) == bits(Spoiled(0, 24, {7}).batch(7).images)
    assert again.batch.metas == first.metas and again.batch.targets is None


def stopped_after_seven(folder):
    folder.mkdir()
    run(folder, loader=Data(0, 24), max_iter=24, snapshot_period=7, checkpoints_kept=0)
    return weights(folder, 6)


def test_the_first_bad_module_is_found():
    model, batch = Toy().train(), Spoiled(0, 1, {0}).batch(0)
    with watched(model) as found:
        losses_of(model, batch, {"cls": 1.0, "bbox": 1.0}, "fp32")[2].backward()
    assert (found.module, found.inputs_finite, found.weights) == ("conv", False, [])
    with torch.no_grad():
        model.head.weight[0, 0] = float("inf")
    with watched(model) as found:
        losses_of(model, Data(0, 1).batch(0), {"cls": 1.0, "bbox": 1.0}, "fp32")[2].backward()
    assert (found.module, found.inputs_finite, found.weights) == ("head", True, ["head.weight"])


def test_a_gradient_alone_is_found():
    model = Toy().train()
    with watched(model) as found:
        raw, _, total = losses_of(model, Data(0, 1).batch(0), {"cls": 1.0, "bbox": 1.0}, "fp32")
        (total * 1e38 * 1e30).backward()
    assert found.module is None and found.gradient is not None


@pytest.mark.parametrize("part", ["batch", "losses", "metas"])
def test_a_file_that_lacks_a_part_is_refused(tmp_path, part):
    with pytest.raises(NonFinite):
        run(tmp_path, loader=Spoiled(0, 24, {1}))
    path = replay.path_of(tmp_path, 1)
    state = checkpoint.load(path)
    del (state["batch"] if part == "metas" else state)[part]
    checkpoint.save(path, state)
    with pytest.raises(InputError, match=f"nonfinite_iter1.pt: .*{part}"):
        replay.load(path)


def test_going_back_halves_the_rate_until_the_limit(tmp_path):
    model = Toy()
    begun = rollback.beginning(model, build_optimizer(model, lr=0.1), CLASS_NAMES)
    first = rollback.go_back(NonFinite("why"), begun, tmp_path, limit=2)
    assert (first.next_iteration, rollback.lr_factor(first)) == (0, 0.5)
    run(tmp_path, max_iter=5)
    second = rollback.go_back(NonFinite("why"), first, tmp_path, limit=2)
    assert (second.path.name, second.next_iteration, rollback.lr_factor(second)) == (
        "model_iter4.pt",
        5,
        0.25,
    )
    with pytest.raises(NonFinite, match="why; 2 returns were made"):
        rollback.go_back(NonFinite("why"), second, tmp_path, limit=2)


def test_the_beginning_is_a_copy(tmp_path):
    model = Toy()
    begun = rollback.beginning(model, build_optimizer(model, lr=0.1), CLASS_NAMES)
    before = bits(begun.state["model"])
    with torch.no_grad():
        model.head.weight.zero_()
    assert bits(begun.state["model"]) == before
