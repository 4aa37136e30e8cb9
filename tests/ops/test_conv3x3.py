# SPDX-License-Identifier: Apache-2.0
"""The 3x3 convolution by Winograd's algorithm is the convolution: values, gradients, formats, types, sizes."""

import pytest
import torch
import torch.nn.functional as F

from detectron_libra.ops import conv3x3 as package
from detectron_libra.ops.conv3x3 import conv3x3, tile_of
from tests.ops.harness import check_compiles, check_repeats, layouts, needs_kernels, uneven, with_backend

#: Sizes that are multiples of no tile, smaller than one, and one cell.
ODD = [(13, 18), (6, 5), (3, 3), (1, 1)]
#: Largest error, as a share of the root mean square of what is computed.
TOLERANCE = {(torch.float32, 4): 5e-5, (torch.float32, 2): 5e-6, (torch.bfloat16, 2): 6e-2}
EXACT = torch.float64


@pytest.fixture(params=TOLERANCE, ids=lambda p: f"{str(p[0])[6:]}-{p[1]}")
def case(request, monkeypatch):
    """(dtype, tile), the tile chosen whatever pays."""
    dtype, tile = request.param
    monkeypatch.setattr(package, "tile_of", lambda *_: tile)
    return dtype, tile


def make(dtype=torch.float32, *, sizes=ODD, inputs=32, outputs=48, images=2, bias=True):
    """Leaves: weight, bias, levels."""
    g = torch.Generator().manual_seed(sum(h * w for h, w in sizes) + inputs)
    levels = [torch.randn(images, inputs, h, w, generator=g).to(dtype).requires_grad_() for h, w in sizes]
    weight = (torch.randn(outputs, inputs, 3, 3, generator=g) / inputs**0.5).requires_grad_()
    shift = torch.randn(outputs, generator=g).requires_grad_() if bias else None
    return weight, shift, levels


def run(convolve, weight, bias, levels, *, relu=False):
    """(outputs, gradients of everything) of a fixed, uneven combination."""
    outs = convolve(levels, weight, bias, relu=relu)
    leaves = [t for t in (weight, bias, *levels) if t is not None and t.requires_grad]
    return outs, torch.autograd.grad([(o.to(EXACT) * uneven(o)).sum() for o in outs], leaves)


def exact(weight, bias, levels, masks=None):
    """The same in float64; `masks`: where the outputs passed a ReLU."""
    leaf = lambda t: None if t is None else t.detach().to(EXACT).requires_grad_(t.requires_grad)  # noqa: E731

    def convolve(levels, weight, bias, relu):
        outs = [F.conv2d(x, weight, bias, padding=1) for x in levels]
        return outs if masks is None else [o * m for o, m in zip(outs, masks, strict=True)]

    return run(convolve, leaf(weight), leaf(bias), [leaf(x) for x in levels])


def assert_near(got, expected, tolerance):
    for g, e in zip(got, expected, strict=True):
        assert g.shape == e.shape
        worst = (g.to(EXACT) - e).abs().max() / e.square().mean().sqrt().clamp(min=1e-3)
        assert worst < tolerance, worst


@needs_kernels
@pytest.mark.parametrize("relu", [False, True])
def test_equals_the_convolution_in_double_precision(case, relu):
    """Outputs and gradients of weights, bias and levels; the ReLU passes gradients where the output is above 0."""
    weight, bias, levels = make(case[0])
    outs, grads = run(conv3x3, weight, bias, levels, relu=relu)
    expected, expected_grads = exact(weight, bias, levels, [o > 0 for o in outs] if relu else None)
    assert all(o.dtype == case[0] for o in outs)
    assert_near(outs, expected, TOLERANCE[case])
    assert_near(grads, expected_grads, TOLERANCE[case])


@needs_kernels
@pytest.mark.parametrize("height", range(1, 11))
def test_every_remainder_of_a_size(case, height):
    """A tile that hangs over the edge of an image neither reads nor writes beyond it."""
    weight, bias, levels = make(case[0], sizes=[(height, 7), (5, height)], inputs=16, outputs=16, images=3)
    (outs, grads), (expected, expected_grads) = (
        run(conv3x3, weight, bias, levels),
        exact(weight, bias, levels),
    )
    assert_near(outs, expected, TOLERANCE[case])
    assert_near(grads, expected_grads, TOLERANCE[case])


@needs_kernels
def test_wide_channels_in_parts(case):
    """Gradients of levels are summed in parts of 64 channels, the last of which may be narrower."""
    weight, bias, levels = make(case[0], sizes=[(9, 6)], inputs=144, outputs=16)
    (_, grads), (_, expected) = run(conv3x3, weight, bias, levels), exact(weight, bias, levels)
    assert_near(grads, expected, TOLERANCE[case])


@needs_kernels
@pytest.mark.parametrize("name", ["contiguous", "channels_last", "strided"])
def test_every_memory_format_gives_the_same_bits(case, name):
    weight, bias, levels = make(case[0], sizes=[(6, 5)])
    (expected,) = conv3x3(levels, weight, bias)
    (got,) = conv3x3([layouts(levels[0].detach())[name]], layouts(weight.detach())[name], bias)
    assert torch.equal(got, expected)
    assert got.is_contiguous(memory_format=torch.channels_last)


@needs_kernels
def test_without_bias_and_with_weights_alone(case):
    """What needs no gradient gets none, and costs none."""
    weight, _, levels = make(case[0], bias=False)
    levels = [x.detach() for x in levels]
    (outs, grads), (expected, expected_grads) = (
        run(conv3x3, weight, None, levels),
        exact(weight, None, levels),
    )
    assert_near(outs, expected, TOLERANCE[case])
    assert_near(grads, expected_grads, TOLERANCE[case])


@needs_kernels
def test_results_do_not_depend_on_the_number_of_threads(case):
    """Of the transforms; the products in between are torch.bmm's, here on one thread's worth of rows."""
    weight, bias, levels = make(case[0], sizes=[(6, 5), (3, 3)], inputs=16, outputs=16)
    check_repeats(lambda w, b, x: conv3x3([x], w, b, relu=True)[0], [weight, bias, levels[0]])


@needs_kernels
def test_not_a_number_is_passed_on(case):
    """A ReLU that hid NaN would hide a broken run from the guard."""
    weight, bias, levels = make(case[0], sizes=[(8, 8)])
    spoilt = levels[0].detach().clone()
    spoilt[0, 3, 4, 4] = float("nan")
    (out,) = conv3x3([spoilt], weight, bias, relu=True)
    assert out[0, :, 3:6, 3:6].isnan().all()
    assert out[1].isfinite().all()


@needs_kernels
def test_autocast_computes_in_its_type():
    """As torch's own convolution under autocast; the weights stay float32 outside."""
    weight, bias, levels = make(sizes=[(40, 40)], inputs=128, outputs=128)
    with torch.autocast("cpu", torch.bfloat16):
        (out,) = conv3x3(levels, weight, bias)
        (direct,) = with_backend("reference", lambda: conv3x3(levels, weight, bias))
    assert out.dtype == direct.dtype == torch.bfloat16
    assert not torch.equal(out, direct), "Winograd's algorithm was not used"
    torch.testing.assert_close(out, direct, rtol=0.05, atol=0.1)
    grads = torch.autograd.grad(out.float().sum(), [weight, bias, levels[0]])
    assert [g.dtype for g in grads] == [torch.float32] * 3


def test_half_and_double_precision_are_the_plain_convolution():
    """Types without a kernel give what PyTorch gives, bit for bit."""
    weight, bias, levels = make(EXACT, sizes=[(40, 40)], inputs=32, outputs=32)
    (out,) = conv3x3(levels, weight.double(), bias.double())
    assert torch.equal(out, F.conv2d(levels[0], weight.double(), bias.double(), padding=1))


@needs_kernels
def test_compiles_in_one_graph(case):
    weight, bias, levels = make(case[0], sizes=[(6, 5)], inputs=16, outputs=16)
    check_compiles(lambda w, b, x: conv3x3([x], w, b, relu=True)[0], [weight, bias, levels[0]])


@needs_kernels
def test_the_second_derivative_is_refused(case):
    weight, bias, levels = make(case[0], sizes=[(6, 5)], inputs=16, outputs=16)
    (out,) = conv3x3(levels, weight, bias)
    (grad,) = torch.autograd.grad(out.float().square().sum(), [weight], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


def test_no_level_and_no_image():
    weight, bias, _ = make()
    assert conv3x3([], weight, bias) == []
    (out,) = conv3x3([torch.zeros(0, 32, 6, 5)], weight, bias)
    assert out.shape == (0, 48, 6, 5)


@needs_kernels
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda o, x, w: o.winograd_input([x], 3), "tile must be 2 or 4"),
        (lambda o, x, w: o.winograd_input([x[:, :8]], 2), "levels must have a multiple of 16 channels"),
        (lambda o, x, w: o.winograd_input([x.double()], 2), "levels must be float32 or bfloat16"),
        (lambda o, x, w: o.winograd_input([x[0]], 2), "levels must have 4 dimensions"),
        (lambda o, x, w: o.winograd_weight(w[:, :, :2], 2, torch.float32), "weight must have size 3"),
        (lambda o, x, w: o.winograd_weight(w.double(), 2, torch.float32), "weight must be float32"),
        (lambda o, x, w: o.winograd_output(x, None, False, [2, 6, 5], 2), "planes must have 3 dimensions"),
        (
            lambda o, x, w: o.winograd_output(x[0, :16, :, :], None, False, [2, 6, 5], 2),
            "planes must have size",
        ),
    ],
)
def test_what_does_not_fit_is_refused_by_name(call, message):
    with pytest.raises(RuntimeError, match=message):
        call(torch.ops.detectron_libra, torch.zeros(2, 32, 6, 5), torch.zeros(48, 32, 3, 3))


def test_the_plan_takes_the_algorithm_where_there_is_much_to_compute():
    head = tuple((2, n, n) for n in (40, 20, 10, 5, 3))
    assert tile_of(head, 256, 256, torch.float32) == 4
    assert tile_of(head, 256, 256, torch.bfloat16) == 2
    assert tile_of(head, 256, 36, torch.float32) == 0, "36 channels are no multiple of 16"
    assert tile_of(((1, 3, 3),), 256, 256, torch.float32) == 0, "one tile is not worth its weights"
    assert tile_of(head, 256, 256, torch.float64) == 0
    assert tile_of(((16, 800, 1344),), 256, 256, torch.float32) == 0, "planes of gigabytes"
