# SPDX-License-Identifier: Apache-2.0
"""Detectron's V includes the learning rate, and that of a bias twice; PyTorch's buffer does not."""

import pytest
import torch

from detectron_libra.engine.optim import build_optimizer
from detectron_libra.errors import UsageError
from detectron_libra.weights.momentum import from_torch_momentum, to_torch_momentum

MU, DECAY = 0.9, 0.01


def detectron_step(values, momentum, gradients, lr):
    """One step as Detectron does it: biases twice and without decay. Source: modeling/optimizer.py."""
    for name, gradient in gradients.items():
        g = 2 * gradient if name.endswith("bias") else gradient + DECAY * values[name]
        momentum[name] = MU * momentum[name] + lr * g
        values[name] = values[name] - momentum[name]


def test_v_of_three_steps_is_our_optimizers_buffer_times_its_rate():
    """The same gradients through our optimizer and through Detectron's rule: one momentum, one set of weights."""
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2).double()
    values = {n: p.detach().clone() for n, p in model.named_parameters()}
    momentum = {n: torch.zeros_like(v) for n, v in values.items()}
    optimizer = build_optimizer(model, lr=0.02, momentum=MU, weight_decay=DECAY, fused=False)
    for _ in range(3):
        gradients = {n: torch.randn_like(p) for n, p in model.named_parameters()}
        for name, parameter in model.named_parameters():
            parameter.grad = gradients[name].clone()
        optimizer.step()
        detectron_step(values, momentum, gradients, 0.02)
    buffers = {n: optimizer.state[p]["momentum_buffer"] for n, p in model.named_parameters()}
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.detach(), values[name])
        torch.testing.assert_close(from_torch_momentum(buffers, 0.02)[name], momentum[name].float())
        torch.testing.assert_close(to_torch_momentum(momentum, 0.02)[name], buffers[name].float())


@pytest.mark.parametrize(("lr", "ulps"), [(0.0078125, 0), (0.02, 1), (1e-4, 1)])
def test_there_and_back_is_one_rounding_and_none_for_a_power_of_two(lr, ulps):
    torch.manual_seed(0)
    buffers = {"a.weight": torch.randn(10_000), "a.bias": torch.randn(10_000)}
    back = to_torch_momentum(from_torch_momentum(buffers, lr), lr)
    for name, buffer in buffers.items():
        steps = back[name].view(torch.int32) - buffer.view(torch.int32)
        assert steps.abs().max() <= ulps


def test_another_rate_of_biases_is_that_of_the_optimizer():
    v = {"a.weight": torch.ones(1), "a.bias": torch.ones(1)}
    assert to_torch_momentum(v, 0.5, bias_lr_factor=1.0) == {
        "a.weight": torch.tensor([2.0]),
        "a.bias": torch.tensor([2.0]),
    }
    assert to_torch_momentum(v, 0.5)["a.bias"] == 1.0


def test_a_rate_of_zero_is_refused():
    for lr in (0.0, -1.0, float("nan")):
        with pytest.raises(UsageError, match="learning rate"):
            to_torch_momentum({"a.weight": torch.ones(1)}, lr)
