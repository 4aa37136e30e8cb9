# SPDX-License-Identifier: Apache-2.0
"""Balanced feature pyramid against numbers of mmdetection's BFP, and how it starts."""

import pytest
import torch

from detectron_libra.errors import UsageError
from detectron_libra.modeling.necks import FPN, BalancedFeaturePyramid
from tests.golden import load

COUNT = 5
SIZES = [(20, 28), (10, 14), (5, 7), (3, 4), (2, 2)]
# (file, prefix of the run, refine index, refine, norm): the runs of a file share their inputs.
SWEEP = [(f"r{r}_{kind}_", r, kind) for r in range(COUNT) for kind in ("none", "conv", "non_local")]
RUNS = [
    ("bfp_p2p6_nonlocal", "", 2, "non_local", None),
    ("bfp_retina_p3p7", "", 1, "non_local", None),
    *(("bfp_sweep", prefix, r, kind, None) for prefix, r, kind in SWEEP),
    ("bfp_ties", "r2_none_", 2, "none", None),
    ("bfp_ties", "r3_none_", 3, "none", None),
    ("bfp_irregular", "r2_none_", 2, "none", None),
    ("bfp_irregular", "r3_nl_", 3, "non_local", None),
    ("bfp_norm_f64", "conv_bn_", 2, "conv", "batch"),
    ("bfp_norm_f64", "nl_bn_", 2, "non_local", "batch"),
    ("bfp_norm_f64", "nl_f64_", 2, "non_local", None),
]


def our_name(name):
    """mmdetection's parameter name as ours: a convolution has no wrapper, and its norm lies beside it."""
    if name == "refine.conv.weight" or name == "refine.conv.bias":
        return name
    return name.replace("conv_out.bn", "norm").replace("refine.bn", "refine.norm").replace(".conv.", ".")


def pyramid(channels, refine_index, refine, norm=None, **options):
    return BalancedFeaturePyramid(
        channels,
        levels=range(2, 2 + COUNT),
        refine_level=2 + refine_index,
        refine=refine,
        norm=norm,
        **options,
    )


def inputs(channels=8, dtype=torch.float32):
    torch.manual_seed(5)
    return [torch.randn(2, channels, h, w, dtype=dtype) for h, w in SIZES]


@pytest.mark.parametrize(("file", "prefix", "index", "refine", "norm"), RUNS)
def test_golden_values_and_gradients(file, prefix, index, refine, norm):
    arrays, _ = load(file)
    values = {n: torch.from_numpy(v) for n, v in arrays.items()}
    dtype = values[f"{prefix}out0"].dtype
    tolerance = {"rtol": 1e-9, "atol": 1e-9} if dtype == torch.float64 else {"rtol": 1e-4, "atol": 1e-4}
    levels = [values[f"x{i}"].to(dtype).requires_grad_() for i in range(COUNT)]
    neck = pyramid(levels[0].shape[1], index, refine, norm).to(dtype).eval()
    weights = {our_name(n[len(prefix) + 2 :]): v for n, v in values.items() if n.startswith(f"{prefix}w.")}
    missing, unexpected = neck.load_state_dict(weights, strict=False)
    assert not unexpected and all("num_batches_tracked" in name for name in missing)

    outputs = neck(levels)
    for i, output in enumerate(outputs):
        torch.testing.assert_close(output, values[f"{prefix}out{i}"], **tolerance)
    sum((o * values[f"u{i}"].to(dtype)).sum() for i, o in enumerate(outputs)).backward()
    for i, level in enumerate(levels):
        torch.testing.assert_close(level.grad, values[f"{prefix}gin{i}"], **tolerance)
    gradients = {n: v for n, v in values.items() if n.startswith(f"{prefix}gw.")}
    parameters = dict(neck.named_parameters())
    assert len(gradients) == len(parameters)
    for name, expected in gradients.items():
        found = parameters[our_name(name[len(prefix) + 3 :])].grad
        # Sums over all positions: float32 rounding grows with the largest of them.
        scale = max(1.0, expected.abs().max().item())
        torch.testing.assert_close(found / scale, expected / scale, **tolerance)


@pytest.mark.parametrize("norm", [None, "batch", "group"])
def test_zero_starts_the_non_local_block_as_identity_and_lets_it_learn(norm):
    neck, levels = pyramid(8, 2, "non_local", norm, init="zero"), inputs()
    plain = pyramid(8, 2, "none")(levels)
    outputs = neck(levels)
    for a, b in zip(outputs, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    sum(o.square().sum() for o in outputs).backward()
    last = neck.refine.norm if norm else neck.refine.conv_out
    assert last.weight.grad.abs().sum() > 0
    assert 0.005 < neck.refine.theta.weight.std() < 0.02


@pytest.mark.parametrize("init", ["zero", "xavier"])
@pytest.mark.parametrize("norm", [None, "group"])
def test_every_parameter_learns_after_one_step(init, norm):
    """Also the 3x3 convolution: with zero weights its ReLU would let no gradient through."""
    torch.manual_seed(0)
    for refine in ("conv", "non_local"):
        neck, levels = pyramid(8, 2, refine, norm, init=init), inputs()
        for _ in range(2):
            neck.zero_grad()
            sum(o.square().sum() for o in neck(levels)).backward()
            with torch.no_grad():
                for p in neck.parameters():
                    p -= 1e-4 * p.grad
        # phi's bias is a constant of a softmax's row, so it never has a gradient.
        still = [n for n, p in neck.named_parameters() if not p.grad.any() and n != "refine.phi.bias"]
        assert not still


def test_xavier_acts_from_the_first_step():
    neck = pyramid(64, 2, "non_local", init="xavier")
    weight = neck.refine.conv_out.weight
    assert abs(weight.std().item() / (2 / 128) ** 0.5 - 1) < 0.05
    levels = inputs(64)
    assert not torch.allclose(neck(levels)[0], pyramid(64, 2, "none")(levels)[0])


def test_refine_level_is_the_number_of_a_level():
    """P4 is the third of P2..P6 and the second of P3..P7."""
    assert BalancedFeaturePyramid(8).refine_index == 2
    assert BalancedFeaturePyramid(8, levels=(3, 4, 5, 6, 7)).refine_index == 1


def test_full_size_has_the_published_number_of_parameters():
    assert sum(p.numel() for p in BalancedFeaturePyramid(256).parameters()) == 263_168


@pytest.mark.parametrize("refine", ["none", "conv", "non_local"])
def test_behind_an_fpn_in_bf16_and_channels_last(refine):
    """Dtype and memory format go through, and the result is that of float32 within bfloat16's rounding."""
    channels = {3: 8, 4: 12, 5: 16}
    fpn = FPN(channels, dim=8, min_level=3, max_level=7, extra_convs=True)
    neck = BalancedFeaturePyramid(8, levels=fpn.levels, refine=refine, init="xavier")
    torch.manual_seed(6)
    features = {k: torch.randn(2, c, 64 // 2 ** (k - 3), 48 // 2 ** (k - 3)) for k, c in channels.items()}
    plain = neck(fpn(features))
    last = {k: v.contiguous(memory_format=torch.channels_last) for k, v in features.items()}
    fpn, neck = fpn.to(memory_format=torch.channels_last), neck.to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        half = neck(fpn(last))
    for a, b in zip(plain, half, strict=True):
        assert b.dtype == torch.bfloat16 and b.is_contiguous(memory_format=torch.channels_last)
        assert (a - b).norm() < 0.05 * a.norm()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"refine": "gaussian"}, "none, conv, non_local"),
        ({"init": "he"}, "zero, xavier"),
        ({"refine_level": 7}, "refine_level: 7"),
        ({"attention": "flash"}, "attention"),
        ({"norm": "layer"}, "layer"),
    ],
)
def test_wrong_arguments_are_named(arguments, said):
    with pytest.raises(UsageError, match=said):
        BalancedFeaturePyramid(8, **arguments)


def test_other_levels_than_it_was_made_for_are_refused():
    with pytest.raises(UsageError, match="4 levels given"):
        BalancedFeaturePyramid(8)(inputs()[:4])
    with pytest.raises(UsageError, match="made for 16"):
        BalancedFeaturePyramid(16)(inputs())


def test_levels_of_two_dtypes_become_the_wider_one():
    """CUDA's autocast leaves normalised levels in float32 and bare convolutions in half."""
    model = BalancedFeaturePyramid(4, levels=(3, 4, 5), refine_level=4, refine="none")
    levels = [torch.randn(1, 4, s, s) for s in (8, 4)] + [torch.randn(1, 4, 2, 2, dtype=torch.bfloat16)]
    out = model(levels)
    assert [level.dtype for level in out] == [torch.float32] * 3
    expected = model([*levels[:2], levels[2].float()])
    assert all(torch.equal(a, b) for a, b in zip(out, expected, strict=True))
