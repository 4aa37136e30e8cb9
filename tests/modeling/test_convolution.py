# SPDX-License-Identifier: Apache-2.0
"""Our Conv2d is nn.Conv2d, whichever way it takes; a tower on several levels is the tower on each."""

import pytest
import torch
from torch import nn

from detectron_libra.modeling.convolution import Conv2d, conv1x1, through
from detectron_libra.modeling.heads.retinanet import tower
from detectron_libra.modeling.norm import FrozenAffine, conv_norm


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def leaf(*shape, seed=0):
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return x.contiguous(memory_format=torch.channels_last).requires_grad_()


ARGUMENTS = [
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": 3, "padding": 1, "stride": 2},
    {"kernel_size": 3, "padding": 2, "dilation": 2},
    {"kernel_size": 3, "padding": 1, "groups": 4},
    {"kernel_size": 3},
    {"kernel_size": 1, "stride": 2},
    {"kernel_size": 1},
    {"kernel_size": 7, "padding": 3, "stride": 2, "bias": False},
]


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("arguments", ARGUMENTS, ids=str)
def test_is_the_convolution_of_torch(arguments, relu, one_thread):
    """Values and gradients, with the same names of weights."""
    torch.manual_seed(1)
    plain = nn.Conv2d(64, 64, **arguments).to(memory_format=torch.channels_last)
    ours = Conv2d(64, 64, **arguments)
    ours.load_state_dict(plain.state_dict())
    x = leaf(2, 64, 21, 30)
    expected = plain(x).relu() if relu else plain(x)
    got = ours(x, relu=relu)
    weights = torch.randn_like(expected)
    wanted = torch.autograd.grad((expected * weights).sum(), [x, *plain.parameters()])
    found = torch.autograd.grad((got * weights).sum(), [x, *ours.parameters()])
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    for g, e in zip(found, wanted, strict=True):
        torch.testing.assert_close(g, e, rtol=1e-3, atol=5e-3)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("images", [1, 3, 20])
def test_rows_of_pixels_are_as_good_as_images(images, stride, one_thread):
    """The view that keeps a 1x1 convolution with oneDNN on one thread: shape, memory format, values, gradients."""
    x, weight, bias = leaf(images, 32, 17, 9), leaf(48, 32, 1, 1, seed=1), torch.randn(48, requires_grad=True)
    got = conv1x1(x, weight, bias, (stride, stride))
    expected = torch.nn.functional.conv2d(x, weight, bias, stride)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    assert got.is_contiguous(memory_format=torch.channels_last)
    for g, e in zip(
        *(torch.autograd.grad(y.square().sum(), [x, weight, bias]) for y in (got, expected)), strict=True
    ):
        torch.testing.assert_close(g, e, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("norm", ["none", "group", "batch"])
def test_a_tower_on_several_levels_is_the_tower_on_each(norm):
    """Each level by itself, and a ReLU after every norm once."""
    torch.manual_seed(2)
    layers = tower(32, 32, 3, norm).eval()
    levels = [leaf(2, 32, 24, 20), leaf(2, 32, 5, 3, seed=1)]
    for got, level in zip(through(layers, levels), levels, strict=True):
        expected = level
        for layer in layers:
            expected = (
                nn.Conv2d.forward(layer, expected)
                if isinstance(layer, nn.Conv2d)
                else layer(expected.clone())
            )
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_a_tower_may_end_without_a_relu():
    layers = nn.Sequential(Conv2d(16, 16, 3, padding=1), nn.ReLU(inplace=True), Conv2d(16, 16, 3, padding=1))
    (out,) = through(layers, [leaf(1, 16, 8, 8)])
    assert out.min() < 0


@pytest.mark.parametrize("kernel", [1, 3])
def test_a_fixed_affine_is_folded_in(kernel):
    conv = Conv2d(32, 32, kernel, padding=kernel // 2, bias=False)
    norm = FrozenAffine(32)
    norm.weight.uniform_(0.5, 2), norm.bias.uniform_(-1, 1)
    x = leaf(2, 32, 16, 12)
    torch.testing.assert_close(
        conv_norm(x, conv, norm, relu=True), norm(nn.Conv2d.forward(conv, x)).relu(), rtol=1e-4, atol=1e-4
    )
