# SPDX-License-Identifier: Apache-2.0
"""Resizes of the balanced feature pyramid: reference numbers, kernels against reference, formats, types."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.library import opcheck

from detectron_libra.ops.pyramid import integrate, integrate_reference, strengthen, strengthen_reference
from tests import golden
from tests.ops.harness import needs_kernels, with_backend

FORMATS = [torch.contiguous_format, torch.channels_last]
IRREGULAR = [(7, 5), (9, 3), (4, 6), (1, 1), (3, 2)]
ODD = [(37, 53), (19, 27), (10, 14), (5, 7), (3, 4)]
CASES = [("bfp_ties", 2), ("bfp_ties", 3), ("bfp_irregular", 2), *(("bfp_sweep", r) for r in range(5))]


def make_levels(
    sizes=ODD,
    *,
    channels=3,
    dtype=torch.float32,
    memory_format=torch.contiguous_format,
    device="cpu",
    ties=False,
):
    """Two images; `ties` draws small integers, so that pooling windows hold several maxima."""
    g = torch.Generator().manual_seed(len(sizes) * 100 + sizes[0][0])
    levels = []
    for h, w in sizes:
        x = torch.randn(2, channels, h, w, generator=g, dtype=torch.float64)
        x = (x * 2).round() if ties else x
        levels.append(x.to(device, dtype).contiguous(memory_format=memory_format).requires_grad_())
    return levels


def run(levels, refine, *, weights=None):
    """(middle, outputs, gradients of the levels) of integrate followed by strengthen."""
    middle = integrate(levels, refine)
    outs = strengthen(levels, middle, refine)
    if weights is None:
        g = torch.Generator().manual_seed(5)
        weights = [torch.empty_like(o).copy_(torch.randn(o.shape, generator=g)) for o in outs]
    total = sum((o * w).sum() for o, w in zip(outs, weights, strict=True))
    return middle, outs, torch.autograd.grad(total, levels)


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("name, refine", CASES)
def test_equals_mmdetection(each_backend, name, refine, memory_format):
    """Forward to the last bit in float32; gradients, ties included, to float32's accuracy."""
    arrays, _ = golden.load(name)
    levels = [
        torch.tensor(arrays[f"x{i}"]).contiguous(memory_format=memory_format).requires_grad_()
        for i in range(5)
    ]
    middle, outs, grads = run(levels, refine, weights=[torch.tensor(arrays[f"u{i}"]) for i in range(5)])
    np.testing.assert_array_equal(middle.detach(), arrays[f"r{refine}_none_bsf_gather"])
    for i in range(5):
        np.testing.assert_array_equal(outs[i].detach(), arrays[f"r{refine}_none_out{i}"])
        np.testing.assert_allclose(grads[i], arrays[f"r{refine}_none_gin{i}"], rtol=1e-5, atol=1e-5)


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("sizes", [ODD, IRREGULAR, [(3, 3)], [(2, 9), (40, 40)], [(41, 37), (1, 2)]])
def test_kernel_equals_reference(sizes, memory_format, dtype, device):
    """Any number of levels and refine index, sizes that grow or shrink, windows of over 256 cells."""
    exact = {torch.float32: 1e-5, torch.float64: 1e-12, torch.bfloat16: 3e-2, torch.float16: 4e-3}[dtype]
    for refine in range(len(sizes)):
        levels = make_levels(sizes, dtype=dtype, memory_format=memory_format, device=device, ties=True)
        got = with_backend("compiled", lambda: run(levels, refine))  # noqa: B023
        want = with_backend("reference", lambda: run(levels, refine))  # noqa: B023
        for a, b in zip((got[0], *got[1], *got[2]), (want[0], *want[1], *want[2]), strict=True):
            assert a.dtype == dtype
            torch.testing.assert_close(a, b, rtol=exact, atol=20 * exact)


@needs_kernels
def test_both_formats_stay_what_they_are(device):
    """The output has the format of the input, forward and backward, and the same numbers."""
    results = []
    for memory_format in FORMATS:
        levels = make_levels(memory_format=memory_format, device=device)
        middle, outs, grads = run(levels, 2)
        assert all(t.is_contiguous(memory_format=memory_format) for t in (middle, *outs, *grads))
        results.append((middle, *outs, *grads))
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


@needs_kernels
def test_strided_and_mixed_formats():
    levels = make_levels()
    odd = [levels[0].transpose(2, 3).contiguous().transpose(2, 3), levels[1].contiguous(), *levels[2:]]
    odd[3] = odd[3].contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(integrate(odd, 2), integrate(levels, 2))


def test_nearest_rounds_in_float32(each_backend):
    """26 -> 44 and 58 -> 230 are sizes where floor(k n / m) is not the rule."""
    for n, m in ((26, 44), (14, 46), (50, 198), (58, 230), (16, 122), (44, 26)):
        small = torch.arange(n, dtype=torch.float32).view(1, 1, n, 1)
        levels = [torch.zeros(1, 1, m, 1), small]
        rule = np.minimum(np.floor(np.arange(m, dtype=np.float32) * (np.float32(n) / np.float32(m))), n - 1)
        np.testing.assert_array_equal(strengthen(levels, small, 1)[0].flatten(), rule)
        np.testing.assert_array_equal(integrate(levels, 0).flatten() * 2, rule)


def test_nan_and_infinity_reach_their_window(each_backend):
    fine = torch.zeros(1, 1, 4, 4)
    fine[0, 0, 0, 1], fine[0, 0, 3, 3] = math.nan, -math.inf
    fine[0, 0, 2:, :2] = -math.inf
    got = integrate([fine, torch.zeros(1, 1, 2, 2)], 1)[0, 0]
    assert math.isnan(got[0, 0]) and got[0, 1] == 0 and got[1, 0] == -math.inf and got[1, 1] == 0


@pytest.mark.parametrize("refine", [0, 1, 2])
def test_gradcheck(each_backend, refine):
    levels = make_levels([(5, 4), (3, 3), (2, 1)], channels=2, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda *x: integrate(x, refine), levels)
    refined = torch.randn_like(levels[refine], requires_grad=True)
    assert torch.autograd.gradcheck(lambda r, *x: strengthen(x, r, refine), (refined, *levels))


@needs_kernels
@pytest.mark.parametrize("memory_format", FORMATS)
def test_opcheck(memory_format):
    levels = make_levels([(5, 4), (3, 3), (2, 1)], memory_format=memory_format)
    opcheck(torch.ops.detectron_libra.pyramid_integrate.default, (levels, 1, True))
    refined = torch.randn_like(levels[1]).requires_grad_()
    opcheck(torch.ops.detectron_libra.pyramid_strengthen.default, (levels, refined, 1))


@needs_kernels
def test_unused_output_and_second_derivative():
    """A level that no loss uses must not break the backward; a second derivative is refused, not wrong."""
    levels = make_levels()
    outs = strengthen(levels, integrate(levels, 2), 2)
    (grad,) = torch.autograd.grad(outs[1].sum(), levels[:1])
    assert grad.abs().sum() > 0
    x = make_levels(dtype=torch.float64)
    (first,) = torch.autograd.grad(integrate(x, 2).square().sum(), x[:1], create_graph=True)
    with pytest.raises(NotImplementedError, match="second derivative"):
        first.sum().backward()


@needs_kernels
def test_compile_fullgraph():
    def both(*x):
        return sum(o.square().sum() for o in strengthen(x, integrate(x, 1), 1))

    levels = make_levels(ODD[2:])
    want = torch.autograd.grad(both(*levels), levels)
    compiled = torch.compile(both, fullgraph=True, backend="aot_eager")
    got = torch.autograd.grad(compiled(*levels), levels)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b)


@needs_kernels
def test_runs_are_bit_equal_whatever_the_threads():
    levels, threads = make_levels([(64, 80), (32, 40), (16, 20)], channels=32), torch.get_num_threads()
    try:
        results = []
        for n in (1, 2, 2):
            torch.set_num_threads(n)
            results.append(run(levels, 1)[2])
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) and torch.equal(a, c) for a, b, c in zip(*results, strict=True))


def test_empty_batch_and_one_cell(each_backend):
    empty = [torch.zeros(0, 3, h, w) for h, w in ODD]
    assert integrate(empty, 2).shape == (0, 3, 10, 14)
    assert [o.shape for o in strengthen(empty, empty[2], 2)] == [x.shape for x in empty]
    one = [torch.full((1, 1, 1, 1), 4.0)]
    assert integrate(one, 0).item() == 4 and strengthen(one, one[0], 0)[0].item() == 8


def test_autocast_keeps_the_dtype(each_backend):
    levels = make_levels(dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        middle = integrate(levels, 2)
        outs = strengthen(levels, middle.float(), 2)
    assert middle.dtype == torch.bfloat16 and {o.dtype for o in outs} == {torch.bfloat16}


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda x: (x, 5), "refine"),
        (lambda x: (x, -1), "refine"),
        (lambda x: ([*x[:-1], x[-1][:, :2]], 2), "N and C"),
        (lambda x: ([*x[:-1], x[-1].double()], 2), "dtype"),
        (lambda x: ([x[0][0], *x[1:]], 2), "levels must be"),
    ],
)
def test_what_is_no_pyramid_is_refused(each_backend, spoil, message):
    with pytest.raises(RuntimeError, match=message):
        integrate(*spoil(make_levels()))
    with pytest.raises(RuntimeError, match="refined"):
        strengthen(make_levels(), torch.zeros(2, 3, 9, 9), 2)


def test_windows_match_torch_for_many_sizes():
    """The definition itself rests on torch's pooling windows: [floor(k n / m), ceil((k + 1) n / m))."""
    for n in range(1, 20):
        for m in range(1, 20):
            x = torch.arange(n, dtype=torch.float32).view(1, 1, n, 1)
            ends = [-(-(k + 1) * n // m) - 1 for k in range(m)]
            assert F.adaptive_max_pool2d(x, (m, 1)).flatten().tolist() == ends
    levels = make_levels()
    assert torch.equal(integrate_reference(levels[:1], 0), levels[0])
    assert torch.equal(strengthen_reference(levels[:1], levels[0], 0)[0], 2 * levels[0])
