# SPDX-License-Identifier: Apache-2.0
"""Where nobody needs a gradient, no positions of maxima are kept, and the numbers are the same."""

import pytest
import torch

from detectron_libra.ops.pyramid import integrate
from tests.ops.harness import needs_kernels

SIZES = ((24, 33), (13, 16), (6, 9), (3, 5))


def levels_of(dtype: torch.dtype, memory_format: torch.memory_format) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    levels = [torch.randn(2, 5, h, w, generator=generator).round(decimals=1) for h, w in SIZES]
    levels[0][0, 0, 3, 4] = torch.nan
    levels[1][1, 2, 0, 0] = torch.inf
    levels[0][1, 4, :4, :4] = -torch.inf
    return [level.to(dtype=dtype, memory_format=memory_format) for level in levels]


@needs_kernels
@pytest.mark.parametrize("refine", [1, 2, 3])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_the_mean_has_the_same_bits_without_positions(dtype, memory_format, refine):
    levels = levels_of(dtype, memory_format)
    op = torch.ops.detectron_libra.pyramid_integrate
    kept, positions = op(levels, refine, True)
    alone, none = op(levels, refine, False)
    assert len(positions) == refine and not none
    assert alone.stride() == kept.stride()
    torch.testing.assert_close(alone, kept, rtol=0, atol=0, equal_nan=True)


@needs_kernels
def test_a_gradient_that_nobody_prepared_is_an_error():
    levels = [level.requires_grad_() for level in levels_of(torch.float32, torch.contiguous_format)]
    out = torch.ops.detectron_libra.pyramid_integrate(levels, 2, False)[0]
    with pytest.raises(RuntimeError, match="without positions"):
        out.sum().backward()
    with torch.no_grad():
        assert not integrate(levels, 2).requires_grad
