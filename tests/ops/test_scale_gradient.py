# SPDX-License-Identifier: Apache-2.0
"""scale_gradient: in place, every type and layout, untouched memory for a factor of 1."""

import pytest
import torch

from detectron_libra.ops.scale_gradient import scale_gradient_
from tests.ops import harness
from tests.ops.harness import needs_kernels

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def gradients(dtype, device="cpu"):
    g = torch.Generator().manual_seed(1)
    shapes = [(7,), (0, 4), (2, 3, 5, 4), (1, 40000)]
    made = [torch.randn(shape, generator=g).to(device, dtype) for shape in shapes]
    made[2] = made[2].contiguous(memory_format=torch.channels_last)
    return made


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("number", [1.0, 0.3, 0.0, -2.0])
def test_scales_in_place(each_backend, device, dtype, number):
    wide = torch.promote_types(dtype, torch.float32)
    ours = gradients(dtype, device)
    expected = [(t.to(wide) * number).to(dtype) for t in ours]
    places = [t.data_ptr() for t in ours]
    scale_gradient_(ours, torch.tensor(number, dtype=wide, device=device))
    for got, want, place in zip(ours, expected, places, strict=True):
        torch.testing.assert_close(got, want)
        assert got.data_ptr() == place


@needs_kernels
def test_more_gradients_than_one_launch_takes(device):
    ours = [torch.ones(3, device=device) for _ in range(40)]
    scale_gradient_(ours, torch.tensor(2.0, device=device))
    assert all(t.tolist() == [2.0] * 3 for t in ours)


@needs_kernels
def test_half_types_keep_every_number_at_factor_two(device):
    """Exact for every finite half and bfloat16 number, subnormal ones included; infinities and NaN stay."""
    for dtype in (torch.float16, torch.bfloat16):
        every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype).to(device)
        expected = (every.double() * 2).to(dtype)
        got = every.clone()
        scale_gradient_([got], torch.tensor(2.0, device=device))
        same = (got == expected) | (got.isnan() & expected.isnan())
        assert same.all(), every[~same][:5]


@needs_kernels
def test_half_types_round_to_nearest_even(device):
    """Numbers of the size of a gradient, and below the smallest normal half."""
    g = torch.Generator().manual_seed(0)
    for dtype in (torch.float16, torch.bfloat16):
        for size in (1.0, 1e-6, 6e4):
            base = (torch.randn(20000, generator=g) * size).to(dtype).to(device)
            expected = (base.float() * 0.7).to(dtype)
            scale_gradient_([base], torch.tensor(0.7, device=device))
            assert torch.equal(base, expected)


@needs_kernels
def test_wrong_arguments_are_refused():
    with pytest.raises(RuntimeError, match="factor must be float64 for float64 gradients"):
        scale_gradient_([torch.ones(2)], torch.tensor(1.0, dtype=torch.float64))
    with pytest.raises(RuntimeError, match="factor must hold one number"):
        scale_gradient_([torch.ones(2)], torch.ones(2))
    with pytest.raises(RuntimeError, match="gradients must lie in memory without gaps"):
        scale_gradient_([torch.ones(4)[::2]], torch.tensor(1.0))


@needs_kernels
def test_registration_passes_opcheck(device):
    harness.check_op(
        torch.ops.detectron_libra.scale_gradient_.default,
        ([torch.ones(3, device=device)], torch.tensor(2.0, device=device)),
    )
