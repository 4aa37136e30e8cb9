# SPDX-License-Identifier: Apache-2.0
"""Nothing that is not finite reaches the weights or a checkpoint, and the error says where it came from."""

import copy
import os

import pytest
import torch

from detectron_libra.engine.guard import Guard, Step, memory_errors_named, require_finite
from detectron_libra.engine.optim import build_optimizer
from detectron_libra.errors import RunError
from tests.engine.toy import Data, Toy, run


def step_of(model, losses, norm):
    return Step(7, 0.5, losses, norm, Data(0, 9).batch(7))


@pytest.mark.parametrize(("loss", "norm"), [("nan", 1.0), ("inf", 1.0), (1.0, "nan"), (1.0, "inf")])
def test_error_names_parts_iteration_rate_and_files(loss, norm):
    model = Toy()
    losses = {"cls": torch.tensor(float(loss)), "bbox": torch.tensor(0.25)}
    with pytest.raises(RunError) as error:
        Guard(build_optimizer(model, lr=0.1)).check(
            step_of(model, losses, torch.tensor(float(norm))), sum(losses.values())
        )
    for word in ("iteration 7", "lr 0.5", "bbox 0.25", "image_14.jpg", "image_15.jpg", "SOLVER.BASE_LR"):
        assert word in str(error.value)
    assert "\n" not in str(error.value)


def test_a_finite_step_passes():
    model = Toy()
    Guard(build_optimizer(model, lr=0.1)).check(
        step_of(model, {"cls": torch.ones(())}, torch.ones(())), torch.ones(())
    )


class Spoiled(Data):
    """One batch after which the loss is NaN."""

    def batch(self, iteration):
        batch = super().batch(iteration)
        if iteration != 7:
            return batch
        return type(batch)(batch.images.float() * float("nan"), batch.sizes, batch.targets, batch.metas)


def test_a_run_stops_at_the_bad_step_and_keeps_the_last_good_checkpoint(tmp_path):
    with pytest.raises(RunError, match="iteration 7 .*image_14.jpg"):
        run(tmp_path, loader=Spoiled(0, 24))
    assert sorted(os.listdir(tmp_path)) == ["metrics.jsonl", "model_iter4.pt", "nonfinite_iter7.pt"]


def test_a_finite_gradient_whose_update_is_not_finite_is_refused():
    model = Toy()
    with pytest.raises(RunError, match="gradient norm 1e\\+20"):
        Guard(build_optimizer(model, lr=1e19)).check(
            Step(7, 1e19, {"cls": torch.ones(())}, torch.tensor(1e20), Data(0, 9).batch(7)), torch.ones(())
        )


def test_weights_that_are_not_finite_are_named_before_they_would_be_saved():
    model = Toy()
    require_finite(model, 7)
    with torch.no_grad():
        model.norm.bias[1] = float("nan")
    with pytest.raises(RunError, match="norm.bias is not finite after iteration 7.*nothing is saved"):
        require_finite(model, 7)


def test_a_gradient_that_is_not_finite_leaves_the_weights_alone():
    model = Toy()
    before = copy.deepcopy(model.state_dict())
    optimizer = build_optimizer(model, lr=0.1)
    losses, _ = model.train()(Data(0, 1).batch(0))
    losses["cls"].backward()
    model.head.bias.grad[0] = float("inf")
    norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    with pytest.raises(RunError, match="gradient norm inf"):
        Guard(optimizer).check(step_of(model, losses, norm), losses["cls"])
        optimizer.step()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_out_of_memory_names_the_batch():
    batch = Data(0, 1).batch(0)
    with (
        pytest.raises(RunError, match="2 x 3 x 8 x 8.*IMS_PER_BATCH.*image_0.jpg"),
        memory_errors_named(batch),
    ):
        torch.empty(2**60)
    with pytest.raises(RuntimeError, match="shape"), memory_errors_named(batch):
        torch.zeros(2).view(3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu_the_error_comes_one_step_later_and_the_weights_stay():
    model = Toy().cuda()
    optimizer = build_optimizer(model, lr=0.1)
    guard, one = Guard(optimizer), torch.ones((), device="cuda")
    for loss in (one, one * float("nan")):
        before = copy.deepcopy(model.state_dict())
        for p in model.parameters():
            p.grad = torch.full_like(p, loss.item()) if p.requires_grad else None
        guard.check(step_of(model, {"cls": loss}, one), loss)
        optimizer.step()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    with pytest.raises(RunError, match="iteration 7"):
        guard.flush()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu_a_first_step_that_is_skipped_leaves_everything_as_it_was():
    """Statistics are put back on the device; momentum, which has no value yet, does not take one from the memory."""
    model = torch.nn.BatchNorm1d(4).cuda()
    optimizer, told = build_optimizer(model, lr=0.1), []
    buffers, one = [model.running_mean, model.running_var], torch.ones((), device="cuda")
    guard = Guard(optimizer, on_bad=told.append, buffers=buffers)
    before = copy.deepcopy(model.state_dict())
    guard.remember()
    model(torch.full((3, 4), float("nan"), device="cuda")).sum().backward()
    assert guard.check(step_of(model, {"cls": one * float("nan")}, one), one * float("nan"))
    optimizer.step()
    assert not told
    guard.flush()
    assert [step.iteration for step in told] == [7]
    after = model.state_dict()
    assert all(torch.equal(after[k], before[k]) for k in ("weight", "bias", "running_mean", "running_var"))
    assert all((state["momentum_buffer"] == 0).all() for state in optimizer.state.values())
