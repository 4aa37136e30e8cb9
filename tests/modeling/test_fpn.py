# SPDX-License-Identifier: Apache-2.0
"""Feature pyramid network: levels, sums, odd sizes, extra levels, initial weights."""

import pytest
import torch
from torch.nn import functional as F

from detectron_libra.errors import UsageError
from detectron_libra.modeling.necks import FPN

CHANNELS = {2: 8, 3: 12, 4: 16, 5: 24}


def features(h, w, channels=CHANNELS):
    torch.manual_seed(1)
    sizes = {}
    for level in range(6):
        sizes[level] = (h, w)
        h, w = (h + 1) // 2, (w + 1) // 2
    return {level: torch.randn(2, c, *sizes[level]) for level, c in channels.items()}


@pytest.mark.parametrize("size", [(128, 160), (101, 77)])
def test_p2_to_p6(size):
    """The rule: without EXTRA_CONV_LEVELS P6 is every second cell of P5's output (max-pooling 1, stride 2)."""
    neck = FPN(CHANNELS, dim=6)
    levels = neck(features(*size))
    assert neck.levels == (2, 3, 4, 5, 6) and neck.strides == (4, 8, 16, 32, 64) and neck.out_channels == 6
    for stride, level in zip(neck.strides, levels, strict=True):
        assert level.shape == (2, 6, -(-size[0] // stride), -(-size[1] // stride))
    assert torch.equal(levels[4], levels[3][..., ::2, ::2])


def test_top_down_sum_is_nearest_upsampling_and_odd_sizes_are_cropped():
    """Against the definition in index arithmetic: cell (i, j) gets cell (i//2, j//2) of the level above."""
    neck, inputs = FPN(CHANNELS, dim=6), features(101, 77)
    levels = neck(inputs)
    merged = None
    for level in (5, 4, 3, 2):
        lateral = neck.lateral[str(level)](inputs[level])
        if merged is not None:
            h, w = lateral.shape[-2:]
            lateral = lateral + merged[:, :, torch.arange(h)[:, None] // 2, torch.arange(w) // 2]
        merged = lateral
        torch.testing.assert_close(levels[level - 2], neck.output[str(level)](merged))


@pytest.mark.parametrize("relu", [True, False])
def test_retinanet_levels_come_from_c5_and_relu_of_p6(relu):
    """The rule: P6 = 3x3 stride 2 on C5, P7 = 3x3 stride 2 on ReLU(P6), and the head sees P6 before the ReLU."""
    neck = FPN(CHANNELS, dim=6, min_level=3, max_level=7, extra_convs=True, extra_relu=relu)
    inputs = features(128, 160)
    levels = neck(inputs)
    assert neck.levels == (3, 4, 5, 6, 7) and "2" not in neck.lateral
    assert neck.extra["6"].weight.shape == (6, 24, 3, 3)
    p6 = F.conv2d(inputs[5], neck.extra["6"].weight, neck.extra["6"].bias, stride=2, padding=1)
    torch.testing.assert_close(levels[3], p6)
    assert (p6 < 0).any()
    source = p6.relu() if relu else p6
    p7 = F.conv2d(source, neck.extra["7"].weight, neck.extra["7"].bias, stride=2, padding=1)
    torch.testing.assert_close(levels[4], p7)


def test_p6_comes_from_p5_where_asked_for():
    """torchvision's RetinaNet; the first extra convolution then has as many inputs as the pyramid channels."""
    neck = FPN(CHANNELS, dim=6, min_level=3, max_level=7, extra_convs=True, extra_from_output=True)
    levels = neck(features(128, 160))
    p6 = F.conv2d(levels[2], neck.extra["6"].weight, neck.extra["6"].bias, stride=2, padding=1)
    torch.testing.assert_close(levels[3], p6)


def test_initial_weights_are_caffe2_xavier_fill():
    neck = FPN({3: 64, 4: 64, 5: 64}, dim=64, min_level=3, max_level=7, extra_convs=True)
    for conv in (neck.lateral["3"], neck.output["4"], neck.extra["7"]):
        bound = (3 / conv.weight[0].numel()) ** 0.5
        assert 0.98 * bound < conv.weight.abs().max() <= bound
        assert abs(conv.weight.std().item() / (bound / 3**0.5) - 1) < 0.05
        assert not conv.bias.any()


def test_zero_initialised_laterals_leave_the_coarsest():
    neck = FPN(CHANNELS, dim=6, zero_init_lateral=True)
    assert [level for level in (2, 3, 4, 5) if neck.lateral[str(level)].weight.any()] == [5]


def test_full_size_has_the_published_number_of_values():
    """Detectron's fpn_* blobs of Faster R-CNN and RetinaNet with ResNet-50."""
    backbone = {2: 256, 3: 512, 4: 1024, 5: 2048}
    with torch.device("meta"):
        faster = FPN(backbone)
        retina = FPN(backbone, min_level=3, max_level=7, extra_convs=True)
    laterals, outputs = (256 + 512 + 1024 + 2048 + 4) * 256, 4 * (9 * 256 + 1) * 256
    assert sum(p.numel() for p in faster.parameters()) == laterals + outputs
    assert sum(p.numel() for p in retina.parameters()) == 7_997_440


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_norm_takes_the_bias(norm):
    neck = FPN(CHANNELS, dim=8, norm=norm)
    assert neck.lateral["3"].bias is None and neck.output["3"].bias is None
    neck.train()(features(64, 64))[0].sum().backward()
    assert neck.lateral_norm["5"].weight.grad is not None


def test_bf16_and_channels_last():
    neck = FPN(CHANNELS, dim=6, min_level=3, max_level=7, extra_convs=True)
    inputs = features(128, 160)
    plain = neck(inputs)
    last = {k: v.contiguous(memory_format=torch.channels_last) for k, v in inputs.items()}
    with torch.autocast("cpu", torch.bfloat16):
        half = neck.to(memory_format=torch.channels_last)(last)
    for a, b in zip(plain, half, strict=True):
        assert b.dtype == torch.bfloat16 and b.is_contiguous(memory_format=torch.channels_last)
        assert (a - b).norm() < 0.05 * a.norm()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"min_level": 1}, "levels 1..6"),
        ({"max_level": 4}, "levels 2..4"),
        ({"max_level": 7}, "FPN.EXTRA_CONV_LEVELS"),
    ],
)
def test_levels_that_cannot_be_made_are_refused(arguments, said):
    with pytest.raises(UsageError, match=said):
        FPN(CHANNELS, **arguments)


def test_a_level_that_is_not_half_of_the_finer_one_is_refused():
    inputs = features(128, 128)
    inputs[5] = torch.randn(2, 24, 8, 8)
    with pytest.raises(UsageError, match="8x8 follows one of 8x8"):
        FPN(CHANNELS, dim=6)(inputs)
