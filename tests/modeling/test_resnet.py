# SPDX-License-Identifier: Apache-2.0
"""Backbones: shapes, names, sizes and frozen parts that Detectron's weights need; training from scratch."""

from math import ceil

import pytest
import torch

from detectron_libra.errors import UsageError
from detectron_libra.modeling.backbones import ARCHITECTURES, ResNet
from detectron_libra.modeling.convolution import Conv2d
from detectron_libra.modeling.norm import FrozenAffine, conv_norm, group_count, make_norm

SMALL = {"width": 8, "norm_groups": 4}


def values(module):
    return sum(v.numel() for k, v in module.state_dict().items())


def images(h=64, w=96, n=1):
    return torch.randn(n, 3, h, w, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("norm", ["affine", "group"])
def test_every_architecture_gives_c2_to_c5_rounded_up(name, norm):
    arguments = {**ARCHITECTURES[name], **SMALL, "norm": norm}
    if arguments.get("groups", 1) > 1:
        # An eighth of the width would leave a fraction of a channel per group.
        arguments |= {"width": 64, "groups": 8, "width_per_group": 1}
    if max(arguments["stage_blocks"]) > 10:
        arguments["stage_blocks"] = (1, 2, 3, 1)
    net = ResNet(**arguments).eval()
    features = net(images(70, 101))
    assert list(features) == [2, 3, 4, 5] == list(net.out_channels)
    for stage, feature in features.items():
        stride = net.strides[stage]
        assert stride == 2**stage
        assert feature.shape == (1, net.out_channels[stage], ceil(70 / stride), ceil(101 / stride))
        assert feature.isfinite().all()


@pytest.mark.parametrize(
    ("name", "total"),
    [
        ("resnet18", 11_689_512 - 513_000),
        ("resnet34", 21_797_672 - 513_000),
        ("resnet50", 25_557_032 - 2_049_000),
        ("resnet101", 44_549_160 - 2_049_000),
        ("resnet152", 60_192_808 - 2_049_000),
        ("resnext101_32x8d", 88_791_336 - 2_049_000),
        ("resnext101_64x4d", 83_455_272 - 2_049_000),
    ],
)
def test_bodies_have_the_published_number_of_values(name, total):
    """What torchvision publishes, without the classifier; affine pairs stand for its norms' weights."""
    with torch.device("meta"):
        assert values(ResNet(**ARCHITECTURES[name])) == total


def test_resnet50_with_affine_holds_what_the_weight_file_holds():
    """Detectron's R-50: 53 convolutions, each with a scale and a shift, and nothing else."""
    with torch.device("meta"):
        net = ResNet(**ARCHITECTURES["resnet50"])
    shapes = {k: tuple(v.shape) for k, v in net.state_dict().items()}
    assert len(shapes) == 3 * 53
    assert shapes["stem.conv.weight"] == (64, 3, 7, 7)
    assert shapes["res2.0.shortcut.weight"] == (256, 64, 1, 1)
    assert shapes["res4.5.conv2.weight"] == (256, 256, 3, 3)
    assert shapes["res5.2.norm3.bias"] == (2048,)
    assert "res2.1.shortcut.weight" not in shapes


def test_resnext_has_grouped_convolutions_of_the_published_width():
    with torch.device("meta"):
        wide = ResNet(**ARCHITECTURES["resnext101_32x8d"])
        many = ResNet(**ARCHITECTURES["resnext101_64x4d"])
    assert wide.res2[0].conv2.weight.shape == (256, 8, 3, 3)
    assert many.res5[2].conv2.weight.shape == (2048, 32, 3, 3)
    assert wide.res3[0].conv2.stride == (2, 2) and wide.res3[0].conv1.stride == (1, 1)


def test_detectron_strides_in_the_first_1x1():
    """The rule: STRIDE_1X1 puts the stride of res3 to res5 into the first 1x1 convolution; res2 has stride 1."""
    net = ResNet(**ARCHITECTURES["resnet50"], **SMALL)
    assert net.res3[0].conv1.stride == (2, 2) and net.res3[0].conv2.stride == (1, 1)
    assert net.res2[0].conv1.stride == (1, 1)


@pytest.mark.parametrize("norm", ["affine", "batch", "group", "none"])
@pytest.mark.parametrize("freeze_at", [0, 2, 3, 5])
def test_frozen_parts_get_no_gradient_and_the_rest_does(norm, freeze_at):
    net = ResNet(stage_blocks=(1, 1, 1, 1), block="basic", norm=norm, freeze_at=freeze_at, **SMALL).train()
    frozen = {"stem", *(f"res{s}" for s in range(2, freeze_at + 1))} if freeze_at else set()
    x = images().requires_grad_()
    features = net(x)
    total = sum(f.sum() for f in features.values())
    if freeze_at == 5:
        assert not total.requires_grad
        return
    before = {k: v.clone() for k, v in net.state_dict().items() if "running" in k}
    total.backward()
    for name, parameter in net.named_parameters():
        assert (parameter.grad is None) == (name.split(".")[0] in frozen), name
    assert (x.grad is None) == bool(freeze_at)
    net(images(n=2))
    for name, value in net.state_dict().items():
        if name in before:
            assert torch.equal(value, before[name]) == (name.split(".")[0] in frozen), name


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_trains_from_random_weights(norm):
    torch.manual_seed(0)
    net = ResNet(stage_blocks=(2, 2, 2, 2), block="basic", norm=norm, freeze_at=0, **SMALL).train()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    x, losses = images(n=4), []
    target = torch.randn(4, 64, 2, 3)
    for _ in range(8):
        loss = (net(x)[5] - target).square().mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
        optimizer.step()
    assert losses[-1] < 0.9 * losses[0], losses


def test_zero_initialised_residuals_start_as_identity():
    net = ResNet(norm="batch", stage_blocks=(2, 1, 1, 1), zero_init_residual=True, **SMALL).eval()
    x = images(16, 16).repeat(1, 11, 1, 1)[:, :32].relu()
    torch.testing.assert_close(net.res2[1](x), x, rtol=0, atol=0)


def test_dilated_stage_5_keeps_the_size_of_stage_4():
    net = ResNet(stage_blocks=(1, 1, 1, 1), res5_dilation=2, **SMALL)
    features = net(images())
    assert net.strides[5] == 16 and features[5].shape[-2:] == features[4].shape[-2:]
    assert net.res5[0].conv2.dilation == (2, 2)


def test_network_ends_after_the_last_stage_asked_for():
    net = ResNet(stage_blocks=(1, 1, 1, 1), out_stages=(4,), **SMALL)
    assert list(net(images())) == [4] and not hasattr(net, "res5")


def test_folded_affine_equals_convolution_then_affine():
    torch.manual_seed(0)
    conv, norm = Conv2d(6, 8, 3, padding=1, groups=2, bias=False), FrozenAffine(8)
    norm.weight.normal_(), norm.bias.normal_()
    x = torch.randn(2, 6, 9, 7)
    torch.testing.assert_close(conv_norm(x, conv, norm), norm(conv(x)))
    scale = norm.weight[:, None, None]
    torch.testing.assert_close(norm(conv(x)), conv(x) * scale + norm.bias[:, None, None])
    assert not list(norm.parameters()) and set(norm.state_dict()) == {"weight", "bias"}


@pytest.mark.parametrize("norm", ["affine", "group", "batch"])
def test_bf16_and_channels_last_come_out_as_they_went_in(norm):
    net = ResNet(stage_blocks=(1, 1, 1, 1), norm=norm, **SMALL).eval()
    x = images()
    plain = net(x)
    last = net.to(memory_format=torch.channels_last)(x.contiguous(memory_format=torch.channels_last))
    with torch.autocast("cpu", torch.bfloat16):
        half = net(x)
    for stage in plain:
        torch.testing.assert_close(last[stage], plain[stage], rtol=1e-4, atol=1e-4)
        assert last[stage].is_contiguous(memory_format=torch.channels_last)
        assert half[stage].dtype == torch.bfloat16
        assert (half[stage] - plain[stage]).norm() < 0.05 * plain[stage].norm()


def test_group_count_divides_and_keeps_two_channels_a_group():
    assert [group_count(c, 32) for c in (256, 64, 32, 24, 48, 8, 1)] == [32, 32, 16, 4, 8, 4, 1]


@pytest.mark.parametrize(
    "wrong",
    [
        {"block": "wide"},
        {"freeze_at": 1},
        {"stem": "5x5"},
        {"norm": "layer"},
        {"stage_blocks": (2, 2)},
        {"width_per_group": 3, "groups": 32, "width": 24},
    ],
)
def test_a_wrong_argument_is_named(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        ResNet(**wrong)


def test_unknown_norm_lists_the_known_ones():
    with pytest.raises(UsageError, match="affine, batch, group, none"):
        make_norm("instance", 8)
