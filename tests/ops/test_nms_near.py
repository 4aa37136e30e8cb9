# SPDX-License-Identifier: Apache-2.0
"""Greedy suppression that looks only at nearby boxes: the bound it trusts, all sizes of groups, bounded memory."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from detectron_libra.ops.nms import nms
from tests.ops import harness
from tests.ops.harness import needs_kernels
from tests.ops.test_nms import crowd


def reference_and_kernel(boxes, scores, groups, **options):
    def run():
        return nms(boxes, scores, groups, **options)

    return harness.with_backend("reference", run), harness.with_backend("compiled", run)


@needs_kernels
@given(
    k=st.sampled_from([0, 1, 15, 16, 17, 47, 48, 49, 50, 64, 65, 300, 1100]),
    groups=st.sampled_from([1, 2, 5, 100]),
    seed=st.integers(0, 999),
    threshold=st.sampled_from([-1.0, 0.0, 1e-7, 1e-3, 0.25, 0.5, 0.7, 1.0, 2.0]),
    extent=st.sampled_from([0.0, 1.0]),
    inclusive=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    scale=st.sampled_from([1e-20, 1e-3, 1.0, 1e4, 1e18]),
    shift=st.sampled_from([0.0, -20.0, 1e6]),
    whole=st.booleans(),
)
def test_kernel_equals_reference(k, groups, seed, threshold, extent, inclusive, dtype, scale, shift, whole):
    boxes, scores, group = crowd(k, groups, seed, whole)
    boxes = (boxes.to(dtype) + shift) * scale
    options = {"threshold": threshold, "extent": extent, "inclusive": inclusive}
    expected, got = reference_and_kernel(boxes, scores, group, **options)
    assert torch.equal(got, expected)


@needs_kernels
@given(
    st.lists(
        st.tuples(*[st.floats(width=32, allow_nan=True, allow_infinity=True)] * 4, st.integers(0, 3)),
        min_size=50,
        max_size=50,
    ),
    st.sampled_from([0.0, 0.3, 0.7]),
    st.sampled_from([0.0, 1.0]),
    st.booleans(),
)
def test_any_float_at_all(rows, threshold, extent, inclusive):
    boxes = torch.tensor([row[:4] for row in rows], dtype=torch.float32)
    copies = torch.tensor([row[4] for row in rows])
    boxes = torch.where((copies > 0)[:, None], boxes.roll(1, 0), boxes)  # so that some are equal
    scores, groups = torch.linspace(1, 0, 50), torch.zeros(50, dtype=torch.int64)
    options = {"threshold": threshold, "extent": extent, "inclusive": inclusive}
    expected, got = reference_and_kernel(boxes, scores, groups, **options)
    assert torch.equal(got, expected)


@pytest.mark.parametrize("extent", [0.0, 1.0])
@pytest.mark.parametrize("threshold", [1e-6, 0.05, 0.3, 0.5, 0.7, 0.95, 1.0])
def test_no_box_beyond_the_reach_gets_to_the_threshold(extent, threshold):
    """Boxes are made to lie at the bound, where one rounding decides."""
    math_module = pytest.importorskip("detectron_libra._math")
    random = np.random.default_rng(0)
    n, f = 400_000, np.float32
    size = 10 ** random.uniform(-6, 5, n)
    first = random.uniform(-1, 1, n) * 10 ** random.uniform(-3, 6, n)
    a = np.stack([first, np.zeros(n), first + size, np.ones(n)]).astype(f)
    side = (a[2] - a[0] + f(extent)).astype(f)
    low = math_module.nms_reach_low(a[0], side, threshold, extent)
    high = math_module.nms_reach_high(a[0], side, threshold, extent)
    for bound, outwards, exact in (
        (low, -np.inf, first - (size + extent) * (1 / threshold - 1)),
        (high, np.inf, first + (size + extent) * (1 - threshold)),
    ):
        for corner in (np.nextafter(bound, f(outwards)), np.nextafter(exact.astype(f), f(outwards))):
            outside = (corner < low) | (corner > high)
            for other_end in (a[2], np.nextafter(a[2], f(np.inf)), corner + (a[2] - a[0])):
                iou = math_module.nms_iou(*a, corner, a[1], other_end.astype(f), a[3], extent)
                assert not (outside & (iou >= f(threshold))).any()
    assert (low <= a[0]).all()
    assert (high >= a[0]).all()


def test_iou_is_that_of_the_definition():
    math_module = pytest.importorskip("detectron_libra._math")
    boxes, _, _ = crowd(300)
    boxes[:, 2:] += 1  # no two without an area
    a, b = boxes[:150].numpy().T, boxes[150:].numpy().T
    for extent in (0.0, 1.0):
        w = np.minimum(a[2], b[2]) - np.maximum(a[0], b[0]) + extent
        h = np.minimum(a[3], b[3]) - np.maximum(a[1], b[1]) + extent
        inter = np.clip(w, 0, None) * np.clip(h, 0, None)
        area = [(c[2] - c[0] + extent) * (c[3] - c[1] + extent) for c in (a, b)]
        np.testing.assert_allclose(
            math_module.nms_iou(*a, *b, extent), inter / (area[0] + area[1] - inter), 1e-5
        )


@needs_kernels
def test_groups_of_all_sizes_beside_each_other(device):
    sizes = torch.tensor([1, 2, 16, 47, 48, 49, 63, 64, 65, 128, 1000, 2047, 2048, 2049, 4500])
    groups = torch.repeat_interleave(torch.randperm(len(sizes)) - 4, sizes)
    boxes, scores, _ = crowd(len(groups))
    mixed = torch.randperm(len(groups), generator=torch.Generator().manual_seed(0))
    inputs = [t.to(device) for t in (boxes * 8, scores, groups[mixed])]
    options = {"threshold": 0.5, "extent": 1.0, "inclusive": True}
    expected = harness.with_backend("reference", lambda: nms(*inputs, **options))
    threads = torch.get_num_threads()
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        got = nms(*inputs, **options)
        torch.set_num_threads(threads)
        assert torch.equal(got, expected)


NARROW = """
import torch
from detectron_libra.ops.nms import nms, soft_nms, vote_boxes
from tests.ops.test_nms import crowd
boxes, scores, groups = crowd(900, 3)
keep = nms(boxes, scores, groups, threshold=0.5, extent=1.0, inclusive=True)
parts = [keep.double()]
for method in ("linear", "gaussian", "hard"):
    parts += [t.double() for t in soft_nms(boxes, scores, groups, method=method, extent=1.0)]
parts += vote_boxes(boxes, scores, groups, boxes, scores, groups, threshold=0.5, method="AVG", extent=1.0)
print(b"".join(p.double().numpy().tobytes() for p in parts).hex()[::7])
"""


@needs_kernels
def test_equal_bits_for_every_instruction_set():
    """A process each: the choice is made once, at the first call."""
    seen = {
        subprocess.run(
            [sys.executable, "-c", NARROW],
            env=os.environ | {"LIBRA_SIMD": name},
            capture_output=True,
            check=True,
        ).stdout
        for name in ("", "avx2", "baseline")
    }
    assert len(seen) == 1


MANY = """
import resource, torch
from detectron_libra.ops.nms import nms, soft_nms
torch.manual_seed(0)
boxes = torch.rand(100_000, 4) * 500
boxes[:, 2:] += boxes[:, :2] * 0.5
scores, groups = torch.rand(100_000), torch.zeros(100_000, dtype=torch.int64)
nms(boxes[:100], scores[:100], groups[:100], threshold=0.7, extent=0.0, inclusive=False)
scores.argsort(stable=True)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
keep = nms(boxes, scores, groups, threshold=0.7, extent=0.0, inclusive=False)
print(int(keep.sum()), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@needs_kernels
def test_a_hundred_thousand_boxes_take_a_few_megabytes():
    """A process of its own: the peak of memory never falls. All pairs would be 1250 MB of bits."""
    out = subprocess.run([sys.executable, "-c", MANY], capture_output=True, check=True, text=True).stdout
    kept, megabytes = map(int, out.split())
    assert 1000 < kept < 100_000
    assert megabytes < 40
