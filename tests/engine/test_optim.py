# SPDX-License-Identifier: Apache-2.0
"""Detectron's rules of the update: groups, momentum, and what a checkpoint may change."""

import copy
import logging

import pytest
import torch

from detectron_libra.engine.optim import build_optimizer, load_state, set_lr
from detectron_libra.errors import InputError, UsageError
from tests.engine.toy import Toy


def gradients(model, seed):
    generator = torch.Generator().manual_seed(seed)
    for p in model.parameters():
        p.grad = torch.empty_like(p).copy_(torch.randn(p.shape, generator=generator))


def test_groups_follow_detectron():
    """The rule: biases have twice the gradient and no decay, weights wd * p, GroupNorm's scales WEIGHT_DECAY_GN."""
    model = Toy()
    names = {p: name for name, p in model.named_parameters()}
    optimizer = build_optimizer(model, lr=0.1, weight_decay=1e-4, weight_decay_gn=2e-4)
    rules = {
        names[p]: (group["weight_decay"], group["lr"])
        for group in optimizer.param_groups
        for p in group["params"]
    }
    assert rules == {
        "conv.weight": (1e-4, 0.1),
        "conv.bias": (0.0, 0.2),
        "norm.weight": (2e-4, 0.1),
        "norm.bias": (0.0, 0.2),
        "head.weight": (1e-4, 0.1),
        "head.bias": (0.0, 0.2),
    }


def test_bias_options():
    optimizer = build_optimizer(Toy(), lr=0.1, weight_decay=1e-4, bias_lr_factor=1.0, bias_decay=True)
    biases = next(g for g in optimizer.param_groups if g["name"] == "biases")
    assert (biases["lr"], biases["weight_decay"]) == (0.1, 1e-4)


@pytest.mark.parametrize("scale", [True, False])
def test_momentum_is_that_of_detectron(scale):
    """V = mu V + lr g; p -= V; V is rescaled at a jump of the rate only: written out beside ours."""
    p = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
    optimizer = build_optimizer(torch.nn.ParameterList([p]), lr=0.1, momentum=0.9, fused=False)
    rates = [0.1, 0.1, 0.105, 0.11, 0.05, 0.0501, 0.5, 0.5]
    expected, v, old = p.detach().clone(), torch.zeros(3, dtype=torch.float64), 0.1
    for i, lr in enumerate(rates):
        g = torch.tensor([1.0, -2.0, 0.5 * i], dtype=torch.float64)
        if scale and max(lr / old, old / lr) > 1.1:
            v = v * (lr / old)
        v = 0.9 * v + lr * g
        expected, old = expected - v, lr
        set_lr(optimizer, lr, scale_momentum=scale)
        p.grad = g
        optimizer.step()
        torch.testing.assert_close(p.detach(), expected, rtol=1e-12, atol=1e-12)


def test_momentum_is_not_rescaled_when_the_rate_leaves_almost_nothing():
    """The rule: a jump rescales V where the old rate is above 1e-7 only; V stays as it is below."""
    for old, rescaled in ((2e-7, True), (1e-8, False)):
        p = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
        optimizer = build_optimizer(torch.nn.ParameterList([p]), lr=old, momentum=0.9, fused=False)
        p.grad = torch.ones_like(p)
        optimizer.step()
        v = old
        set_lr(optimizer, 1e-3)
        p.grad = torch.zeros_like(p)
        before = p.item()
        optimizer.step()
        assert before - p.item() == pytest.approx(0.9 * (1e-3 if rescaled else v), rel=1e-9)


def test_a_rate_of_zero_keeps_everything_finite():
    model = Toy()
    optimizer = build_optimizer(model, lr=0.1)
    for lr in (0.1, 0.0, 0.1):
        gradients(model, 0)
        set_lr(optimizer, lr)
        optimizer.step()
    assert all(p.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_fused_update_of_channels_last_weights_equals_the_plain_one(kind):
    plain, fused = Toy(), Toy()
    fused.load_state_dict(plain.state_dict())
    fused.to(memory_format=torch.channels_last)
    optimizers = [build_optimizer(m, kind=kind, lr=0.1, fused=m is fused) for m in (plain, fused)]
    for step in range(3):
        for model, optimizer in zip((plain, fused), optimizers, strict=True):
            gradients(model, step)
            optimizer.step()
    for a, b in zip(plain.parameters(), fused.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_state_of_another_memory_format_is_laid_out_anew():
    plain, other = Toy(), Toy()
    other.load_state_dict(plain.state_dict())
    other.to(memory_format=torch.channels_last)
    first = build_optimizer(plain, lr=0.1)
    gradients(plain, 0)
    first.step()
    other.load_state_dict(plain.state_dict())
    second = build_optimizer(other, lr=0.1)
    load_state(second, copy.deepcopy(first.state_dict()), "x.pt")
    for model, optimizer in ((plain, first), (other, second)):
        gradients(model, 1)
        optimizer.step()
    torch.testing.assert_close(plain.conv.weight, other.conv.weight)


def test_options_of_the_run_win_over_those_of_the_checkpoint_and_it_is_said(caplog):
    model = Toy()
    state = build_optimizer(model, lr=0.1, weight_decay=1e-4).state_dict()
    optimizer = build_optimizer(model, lr=0.7, weight_decay=5e-4)
    with caplog.at_level(logging.WARNING):
        load_state(optimizer, state, "x.pt")
    assert optimizer.param_groups[0]["weight_decay"] == 5e-4
    assert optimizer.param_groups[0]["lr"] == 0.1, "the old rate says how the momentum is scaled"
    assert "weight_decay of weights: 0.0005, not 0.0001" in caplog.text


def test_state_of_another_kind_is_refused():
    model = Toy()
    state = build_optimizer(model, kind="adamw", lr=0.1).state_dict()
    with pytest.raises(InputError, match="x.pt: the optimizer in it is of another kind"):
        load_state(build_optimizer(model, lr=0.1), state, "x.pt")


def test_nothing_to_train_and_unknown_kind():
    with pytest.raises(UsageError, match="nothing to train"):
        build_optimizer(Toy().requires_grad_(False), lr=0.1)
    with pytest.raises(UsageError, match="SOLVER.OPTIMIZER"):
        build_optimizer(Toy(), kind="lion", lr=0.1)
