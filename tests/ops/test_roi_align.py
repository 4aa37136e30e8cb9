# SPDX-License-Identifier: Apache-2.0
"""RoIAlign over a pyramid: a slow loop in NumPy as oracle, kernels against reference, bad boxes."""

import math

import numpy as np
import pytest
import torch
from torch.library import opcheck

from detectron_libra.ops.roi_align import roi_align, roi_levels
from tests.ops.harness import needs_kernels, with_backend

FORMATS = [torch.contiguous_format, torch.channels_last]
STRIDES = (4, 8, 16)
SIZES = [(24, 32), (12, 16), (6, 8)]
INF, NAN = math.inf, math.nan
#: x1 y1 x2 y2 in a picture of 96 x 128: ordinary, thin, over the border, outside, turned around, no size.
BOXES = [
    [10.3, 20.1, 60.2, 70.9],
    [0.0, 0.0, 127.0, 95.0],
    [5.0, 5.0, 9.5, 60.0],
    [100.0, 80.0, 160.0, 130.0],
    [-30.0, -20.0, 15.0, 12.0],
    [300.0, 300.0, 400.0, 350.0],
    [60.0, 50.0, 20.0, 30.0],
    [33.0, 44.0, 33.0, 44.0],
    [-1000.0, -1000.0, 2000.0, 1500.0],
]
BAD = [
    [NAN, 0, 10, 10],
    [0, 0, INF, INF],
    [-INF, -INF, INF, INF],
    [0, NAN, NAN, 5],
    [-3e38, -3e38, 3e38, 3e38],
]


def make_levels(
    *, channels=3, dtype=torch.float32, memory_format=torch.contiguous_format, sizes=SIZES, device="cpu"
):
    g = torch.Generator().manual_seed(0)
    return [
        torch.randn(2, channels, h, w, generator=g, dtype=torch.float64)
        .to(device, dtype)
        .contiguous(memory_format=memory_format)
        .requires_grad_()
        for h, w in sizes
    ]


def make_boxes(rows=BOXES):
    boxes = torch.tensor(rows, dtype=torch.float32)
    return boxes, torch.arange(len(rows)) % 2


def align(levels, boxes, image_index, *, sampling_ratio=2, aligned=True, output_size=3, **changes):
    options = {
        "canonical_scale": 64,
        "canonical_level": 3,
        "min_level": 2,
        "extent": float(not aligned),
    } | changes
    strides = options.pop("strides", STRIDES)
    return roi_align(
        levels, boxes, image_index, strides=strides, output_size=output_size, sampling_ratio=sampling_ratio,
        aligned=aligned, **options,
    )  # fmt: skip


def slow_sample(plane, y, x):
    """One bilinear sample of (H, W); 0 more than a cell outside."""
    height, width = plane.shape
    if y < -1 or y > height or x < -1 or x > width:
        return 0.0
    y, x = max(y, 0.0), max(x, 0.0)
    top, left = min(int(y), height - 1), min(int(x), width - 1)
    down, right = min(top + 1, height - 1), min(left + 1, width - 1)
    fy = 0.0 if top == height - 1 else y - top
    fx = 0.0 if left == width - 1 else x - left
    upper = plane[top, left] * (1 - fx) + plane[top, right] * fx
    return upper * (1 - fy) + (plane[down, left] * (1 - fx) + plane[down, right] * fx) * fy


def slow_roi_align(levels, boxes, image_index, *, sampling_ratio, aligned, side):
    """One number at a time, from the paper's description."""
    extent, out = float(not aligned), np.zeros((len(boxes), levels[0].shape[1], side, side))
    for r, (x1, y1, x2, y2) in enumerate(boxes.double().tolist()):
        area = max(x2 - x1 + extent, 0) * max(y2 - y1 + extent, 0)
        level = min(max(math.floor(3 + math.log2(math.sqrt(area) / 64 + 1e-6)) - 2, 0), len(levels) - 1)
        shift = 0.5 if aligned else 0.0
        x1, y1, x2, y2 = (v / STRIDES[level] - shift for v in (x1, y1, x2, y2))
        width, height = (x2 - x1, y2 - y1) if aligned else (max(x2 - x1, 1), max(y2 - y1, 1))
        ny = sampling_ratio or max(math.ceil(height / side), 0)
        nx = sampling_ratio or max(math.ceil(width / side), 0)
        for c in range(out.shape[1]):
            plane = levels[level][image_index[r], c].detach().double().numpy()
            for by in range(side):
                for bx in range(side):
                    total = 0.0
                    for i in range(ny):
                        for j in range(nx):
                            y = y1 + (by + (i + 0.5) / ny) * height / side
                            x = x1 + (bx + (j + 0.5) / nx) * width / side
                            total += slow_sample(plane, y, x)
                    out[r, c, by, bx] = total / max(ny * nx, 1)
    return out


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("sampling_ratio", [0, 1, 2])
def test_equals_a_slow_loop(each_backend, sampling_ratio, aligned, memory_format):
    """The definition of RoIAlign, boxes across and beyond the border included."""
    levels, (boxes, index) = make_levels(memory_format=memory_format, channels=2), make_boxes()
    got = align(levels, boxes, index, sampling_ratio=sampling_ratio, aligned=aligned)
    want = slow_roi_align(levels, boxes, index, sampling_ratio=sampling_ratio, aligned=aligned, side=3)
    np.testing.assert_allclose(got.detach().numpy(), want, atol=2e-4)


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("aligned, sampling_ratio", [(True, 0), (False, 2)])
def test_kernel_equals_reference(aligned, sampling_ratio, memory_format, dtype, device):
    """Value and gradient; 40 channels are more than one block of the backward."""
    boxes, index = (t.to(device) for t in make_boxes(BOXES + BAD))
    levels = make_levels(channels=40, dtype=dtype, memory_format=memory_format, device=device)
    results = []
    for name in ("compiled", "reference"):
        options = {"aligned": aligned, "sampling_ratio": sampling_ratio, "output_size": 4}
        out = with_backend(name, lambda: align(levels, boxes, index, **options))  # noqa: B023
        weight = torch.linspace(-1, 1, out.numel(), device=device).view(out.shape).to(dtype)
        results.append((out, *torch.autograd.grad(out, levels, weight)))
        assert out.is_contiguous(memory_format=memory_format) and out.dtype == dtype
    assert all(g.is_contiguous(memory_format=memory_format) for g in results[0][1:])
    # The reference rounds half-precision gradients at every sample, the kernels once.
    exact = {torch.float32: 1e-5, torch.float64: 1e-6, torch.bfloat16: 0.1, torch.float16: 0.02}[dtype]
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=exact, atol=10 * exact)


def test_level_follows_the_size_of_the_box():
    """FPN eq. 1: 224 px belongs on level 4, half of it one level finer; clamped, NaN on the finest."""
    sides = [1, 55, 56, 111, 112, 223, 224, 447, 448, 900, 10000]
    boxes = torch.tensor(
        [[0, 0, s, s] for s in sides] + [[NAN, 0, 1, 1], [0, 0, INF, INF]], dtype=torch.float32
    )
    levels = roi_levels(boxes, 4, 224, 4, 2, 0.0)
    assert levels.tolist() == [0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 3, 0, 3]
    assert roi_levels(boxes[3:4], 4, 224, 4, 2, 1.0).tolist() == [1]  # 111 + 1 px wide


@needs_kernels
def test_kernel_chooses_the_level_of_the_definition():
    """Each level constant, so that the output names the level that was read."""
    sides = [3, 31, 32, 63, 64, 127, 128, 500]
    boxes = torch.tensor([[0, 0, s, s] for s in sides], dtype=torch.float32)
    levels = [torch.full((1, 1, h, w), float(i)) for i, (h, w) in enumerate([(128, 128), (64, 64), (32, 32)])]
    got = align(levels, boxes, torch.zeros(len(sides), dtype=torch.int64), output_size=1)
    assert got.flatten().tolist() == roi_levels(boxes, 3, 64, 3, 2, 0.0).tolist() == [0, 0, 0, 0, 1, 1, 2, 2]


def test_bad_boxes_give_zeros_and_no_gradient(each_backend):
    """Boxes that are no numbers, and boxes of no image, must neither crash nor leak into other boxes."""
    levels = make_levels()
    boxes, index = make_boxes([*BAD[:4], BOXES[0], BOXES[0], BOXES[0]])
    index[5], index[6] = -1, 7
    for sampling_ratio in (0, 2):
        out = align(levels, boxes, index, sampling_ratio=sampling_ratio)
        assert (out[[0, 1, 2, 3, 5, 6]] == 0).all() and (out[4] != 0).any()
        grads = torch.autograd.grad(out.sum(), levels)
        alone = torch.autograd.grad(
            align(levels, boxes[4:5], index[4:5], sampling_ratio=sampling_ratio).sum(), levels
        )
        for a, b in zip(grads, alone, strict=True):
            torch.testing.assert_close(a, b)


def test_huge_boxes_end(each_backend):
    """An adaptive grid over a box of 10^30 px must not take for ever."""
    boxes, index = make_boxes([[0, 0, 1e30, 1e30], BAD[4]])
    levels = make_levels(channels=1, sizes=[(4, 4), (2, 2), (1, 1)])
    assert align(levels, boxes, index, sampling_ratio=0, output_size=1).isfinite().all()


def test_values_outside_a_box_do_not_leak(each_backend):
    """A sample outside the level adds 0 even where features are not finite."""
    level = torch.full((1, 1, 8, 8), INF)
    out = align([level], torch.tensor([[200.0, 200.0, 240.0, 240.0]]), torch.tensor([0]), strides=(4,))
    assert (out == 0).all()


def test_no_boxes(each_backend):
    levels = make_levels()
    out = align(levels, torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    assert out.shape == (0, 3, 3, 3)
    assert all((g == 0).all() for g in torch.autograd.grad(out.sum(), levels))


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("aligned, sampling_ratio", [(True, 2), (False, 0)])
def test_gradcheck(each_backend, aligned, sampling_ratio, memory_format):
    levels = make_levels(
        channels=2, dtype=torch.float64, memory_format=memory_format, sizes=[(4, 5), (2, 3), (1, 2)]
    )
    boxes = torch.tensor([[1.0, 2.0, 13.0, 11.0], [-3.0, 0.0, 40.0, 70.0], [4.0, 4.0, 200.0, 90.0]])
    index = torch.tensor([0, 1, 1])

    def run(*x):
        return align(x, boxes, index, aligned=aligned, sampling_ratio=sampling_ratio, output_size=2)

    assert torch.autograd.gradcheck(run, levels)


@needs_kernels
@pytest.mark.parametrize("memory_format", FORMATS)
def test_opcheck(memory_format):
    levels, (boxes, index) = make_levels(memory_format=memory_format), make_boxes()
    args = (levels, boxes, index, list(STRIDES), 3, 2, True, 64.0, 3, 2, 0.0)
    opcheck(torch.ops.detectron_libra.roi_align.default, args)


@needs_kernels
def test_second_derivative_is_refused():
    levels, (boxes, index) = make_levels(dtype=torch.float64), make_boxes()
    (first,) = torch.autograd.grad(align(levels, boxes, index).square().sum(), levels[:1], create_graph=True)
    with pytest.raises(NotImplementedError, match="second derivative"):
        first.sum().backward()


@needs_kernels
def test_compile_fullgraph():
    levels, (boxes, index) = make_levels(), make_boxes()
    want = torch.autograd.grad(align(levels, boxes, index).square().sum(), levels)
    compiled = torch.compile(
        lambda *x: align(x, boxes, index).square().sum(), fullgraph=True, backend="aot_eager"
    )
    for a, b in zip(torch.autograd.grad(compiled(*levels), levels), want, strict=True):
        torch.testing.assert_close(a, b)


@needs_kernels
def test_runs_are_bit_equal_whatever_the_threads():
    levels, threads = make_levels(channels=70), torch.get_num_threads()
    boxes, index = make_boxes(BOXES * 4)
    try:
        results = []
        for n in (1, 2, 2):
            torch.set_num_threads(n)
            out = align(levels, boxes, index)
            results.append((out, *torch.autograd.grad(out.square().sum(), levels)))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) and torch.equal(a, c) for a, b, c in zip(*results, strict=True))


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda x, b, i: (x, b[:, :3], i), "boxes"),
        (lambda x, b, i: (x, b, i[:-1]), "image_index"),
        (lambda x, b, i: (x, b, i.int()), "image_index"),
        (lambda x, b, i: (x[:2], b, i), "strides"),
        (lambda x, b, i: ([x[0], x[1][:1], x[2]], b, i), "levels"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(each_backend, spoil, message):
    with pytest.raises(RuntimeError, match=message):
        align(*spoil(make_levels(), *make_boxes()))
