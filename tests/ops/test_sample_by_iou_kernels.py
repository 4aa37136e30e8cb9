# SPDX-License-Identifier: Apache-2.0
"""The samplers' kernels choose the very boxes that plain PyTorch chooses, whatever they are given."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._dynamo.testing import CompileCounterWithBackend

from detectron_libra.ops.sample_by_iou import (
    sample_by_instance,
    sample_by_instance_reference,
    sample_by_iou,
    sample_by_iou_reference,
    sample_uniform,
    sample_uniform_reference,
)
from tests.ops import harness
from tests.ops.harness import needs_kernels

SIZES = (0, 1, 7, 31, 32, 33, 200, 1023, 1025, 2500)
SPECIAL_IOU = (float("nan"), -1.0, 0.0, 0.1, 1 / 3, 0.5, 1.0)


@st.composite
def batches(draw, values=("spread", "special")):
    """(iou, candidates, num, keys, index) of N images and M boxes, as they come and as they never should."""
    images, boxes = draw(st.sampled_from((0, 1, 2, 5))), draw(st.sampled_from(SIZES))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    shape = (images, boxes)

    def random():
        return torch.rand(shape, generator=generator)

    iou = random() ** 2
    if draw(st.sampled_from(values)) == "special":
        pick = torch.randint(0, len(SPECIAL_IOU), shape, generator=generator)
        iou = torch.where(random() < 0.5, torch.tensor(SPECIAL_IOU)[pick], iou)
    steps = draw(st.sampled_from((None, 1, 8, 300)))
    keys = random() if steps is None else (random() * steps).floor() / steps
    candidates = random() < draw(st.sampled_from((0.0, 0.02, 0.5, 1.0)))
    most = draw(st.sampled_from((1, 10, 64, 300, 5000)))
    num = torch.randint(-1, most + 1, (images,), generator=generator)
    index = torch.randint(0, draw(st.sampled_from((1, 3, 40))), shape, generator=generator)
    return iou, candidates, num, keys, index


def moved(device, *tensors, strided=False):
    """On the device; strided: as views with gaps."""
    tensors = [t.to(device) for t in tensors]
    return [torch.stack((t, t), -1)[..., 0] for t in tensors] if strided else tensors


@needs_kernels
@given(batch=batches(), strided=st.booleans())
def test_uniform_kernel_chooses_what_the_reference_chooses(device, batch, strided):
    _, candidates, num, keys, _ = batch
    inputs = moved(device, candidates, num, keys, strided=strided)
    assert torch.equal(sample_uniform(*inputs), sample_uniform_reference(*inputs))


@needs_kernels
@given(
    batch=batches(),
    strided=st.booleans(),
    bins=st.integers(1, 5),
    floor=st.sampled_from((-1.0, 0.0, 0.1, 1 / 3)),
    floor_fraction=st.sampled_from((0.0, 0.25, 1.0)),
    form=st.sampled_from(("paper", "released")),
    low=st.sampled_from((0.0, 0.1)),
    with_top=st.booleans(),
)
def test_iou_kernel_chooses_what_the_reference_chooses(device, batch, strided, with_top, **options):
    iou, candidates, num, keys, _ = batch
    inputs = moved(device, iou, candidates, num, keys, strided=strided)
    if with_top:
        options["max_iou"] = torch.linspace(0.2, 1, len(num), device=device)
    assert torch.equal(sample_by_iou(*inputs, **options), sample_by_iou_reference(*inputs, **options))


@needs_kernels
@given(batch=batches(), strided=st.booleans(), form=st.sampled_from(("paper", "released")))
def test_instance_kernel_chooses_what_the_reference_chooses(device, batch, strided, form):
    _, candidates, num, keys, index = batch
    inputs = moved(device, index, candidates, num, keys, strided=strided)
    options = {"form": form, "num_gt": 40}
    assert torch.equal(
        sample_by_instance(*inputs, **options), sample_by_instance_reference(*inputs, **options)
    )


def large_batch(device, images=3, boxes=30000):
    """What all three samplers take, large enough for several threads."""
    generator = torch.Generator().manual_seed(0)
    iou = torch.rand(images, boxes, generator=generator) ** 2
    keys = torch.rand(images, boxes, generator=generator)
    index = torch.randint(0, 20, (images, boxes), generator=generator)
    num = torch.tensor([256, 1000, 7])[:images]
    return [t.to(device) for t in (iou, iou < 0.5, num, keys, index)]


def all_samplers(iou, candidates, num, keys, index):
    return (
        sample_uniform(candidates, num, keys),
        sample_by_iou(iou, candidates, num, keys, floor=0.1, floor_fraction=0.2),
        sample_by_iou(iou, candidates, num, keys, form="released"),
        sample_by_instance(index, candidates, num, keys, num_gt=20),
        sample_by_instance(index, candidates, num, keys, num_gt=20, form="released"),
    )


@needs_kernels
def test_the_number_of_threads_and_a_second_run_change_nothing(device):
    inputs = large_batch(device)
    first, threads = all_samplers(*inputs), torch.get_num_threads()
    for count in (threads, 1, 3):
        torch.set_num_threads(count)
        try:
            again = all_samplers(*inputs)
        finally:
            torch.set_num_threads(threads)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def places(masks):
    """A number a mask that tells which boxes it holds."""
    return [int((m * torch.arange(1, m.numel() + 1).view_as(m)).sum()) for m in masks]


@needs_kernels
@pytest.mark.parametrize("simd", ["baseline", "avx2"])
def test_narrower_registers_choose_the_same(simd):
    code = (
        "from tests.ops.test_sample_by_iou_kernels import *; print(places(all_samplers(*large_batch('cpu'))))"
    )
    environment = os.environ | {"LIBRA_SIMD": simd}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == str(places(all_samplers(*large_batch("cpu")))), done.stderr


@needs_kernels
def test_operators_pass_opcheck(device):
    ops = torch.ops.detectron_libra
    for boxes in (0, 1, 50):
        iou, candidates, num, keys, index = [
            t[:, :boxes] if t.dim() == 2 else t for t in large_batch(device, 2, 50)
        ]
        harness.check_op(ops.sample_uniform.default, (candidates, num, keys))
        harness.check_op(ops.sample_by_instance.default, (index, candidates, num, keys, 0, 20))
        for top in (None, torch.ones(2, device=device)):
            numbers = (1, 3, -1.0, 0.0, 0.5, 0.0)
            harness.check_op(ops.sample_by_iou.default, (iou, candidates, num, keys, top, *numbers))


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_in_one_graph_for_any_number_of_boxes_and_ground_truths(device, each_backend, dynamic):
    def run(iou, candidates, num, keys, index, gt):
        by_instance = sample_by_instance(index, candidates, num, keys, num_gt=gt.shape[1])
        return by_instance, sample_by_iou(iou, candidates, num, keys), sample_uniform(candidates, num, keys)

    torch._dynamo.reset()
    graphs = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(run, fullgraph=True, dynamic=dynamic, backend=graphs)
    counts = []
    for boxes, most in ((90, 20), (70, 31), (50, 25)):
        inputs = [*large_batch(device, 2, boxes), torch.zeros(2, most, 4, device=device)]
        assert all(torch.equal(a, b) for a, b in zip(compiled(*inputs), run(*inputs), strict=True))
        counts.append(graphs.frame_count)
    assert not dynamic or counts[0] == counts[-1], "other sizes were compiled anew"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_float_types_are_read_as_float32(device, each_backend, dtype):
    iou, candidates, num, keys, _ = large_batch(device, 2, 300)
    iou, keys = iou.to(dtype).requires_grad_(), keys.to(dtype)
    with torch.autocast(iou.device.type, torch.bfloat16):
        chosen = sample_by_iou(iou, candidates, num, keys, form="released", max_iou=iou.amax(1))
    assert torch.equal(chosen, sample_by_iou(iou.float(), candidates, num, keys.float(), form="released"))
    assert not chosen.requires_grad


def test_what_does_not_fit_is_refused_by_name(each_backend):
    iou, candidates, num, keys, index = large_batch("cpu", 2, 9)
    for name, wrong, message in (
        ("candidates", candidates.long(), r"candidates must be \(N, M\) bool"),
        ("candidates", candidates[0], r"candidates must be \(N, M\) bool"),
        ("num", num.int(), "num must be int64"),
        ("num", num[:1], r"num must be \(2,\)"),
        ("keys", keys[:, :5], r"keys must be \(2, 9\)"),
        ("keys", index, "keys must be floating"),
        ("iou", iou[:1], r"iou must be \(2, 9\)"),
        ("max_iou", iou, r"max_iou must be \(2,\)"),
        ("num", num.to("meta"), "num is on meta"),
    ):
        arguments = {"iou": iou, "candidates": candidates, "num": num, "keys": keys} | {name: wrong}
        with pytest.raises(RuntimeError, match=message):
            sample_by_iou(**arguments)
    with pytest.raises(RuntimeError, match="index must be int64"):
        sample_by_instance(index.int(), candidates, num, keys, num_gt=20)
    for option, message in (
        ({"form": "best"}, "form is 'best'; use one of paper, released"),
        ({"bins": 0}, "bins is 0"),
        ({"floor_fraction": 1.5}, "floor_fraction is 1.5"),
    ):
        with pytest.raises(ValueError, match=message):
            sample_by_iou(iou, candidates, num, keys, **option)


@needs_kernels
def test_the_operators_themselves_refuse_what_the_functions_would(device):
    iou, candidates, num, keys, index = large_batch(device, 2, 9)
    ops, numbers = torch.ops.detectron_libra, (0, 3, -1.0, 0.0, 0.5, 0.0)
    for wrong, message in (
        ((iou, candidates.long(), num, keys), "candidates must be bool"),
        ((iou, candidates, num.int(), keys), "num must be int64"),
        ((iou, candidates, num, keys.double()), "keys must be float32"),
        ((iou[:, :3], candidates, num, keys), "iou must have size 9 in dimension 1"),
        ((iou, candidates, num[None], keys), "num must have 1 dimensions"),
    ):
        with pytest.raises(RuntimeError, match=message):
            ops.sample_by_iou.default(*wrong, None, *numbers)
    for at, value, message in (
        (0, 2, "form must be"),
        (1, 0, "bins must be"),
        (3, -0.5, "floor_fraction must"),
    ):
        wrong = [value if i == at else n for i, n in enumerate(numbers)]
        with pytest.raises(RuntimeError, match=message):
            ops.sample_by_iou.default(iou, candidates, num, keys, None, *wrong)
    with pytest.raises(RuntimeError, match="num_gt must be at least 0"):
        ops.sample_by_instance.default(index, candidates, num, keys, 0, -1)


@needs_kernels
def test_an_index_without_a_ground_truth_is_refused_where_the_host_sees_it():
    _, candidates, num, keys, index = large_batch("cpu", 2, 9)
    candidates[:] = True
    with pytest.raises(RuntimeError, match="index has -1 for a candidate, and num_gt is 20"):
        sample_by_instance(index.index_fill(1, torch.tensor(3), -1), candidates, num, keys, num_gt=20)
    candidates[:, 3] = False
    assert sample_by_instance(
        index.index_fill(1, torch.tensor(3), -1), candidates, num, keys, num_gt=20
    ).any()


class TestFormulas:
    """The integers that both kernels share, against NumPy and the reference."""

    math = property(lambda self: pytest.importorskip("detectron_libra._math"))

    def test_interval_is_the_references_at_and_around_every_edge(self):
        from detectron_libra.ops.sample_by_iou.reference import interval_of

        for bins in (1, 2, 3, 5, 7, 49):
            for low, high in (
                (0.0, 0.5),
                (0.1, 0.5),
                (0.0, 1.0),
                (1 / 3, 0.7),
                (0.5, 0.4),
                (0.2, float("nan")),
            ):
                low32, high32 = np.float32(low), np.float32(high)
                width = max(high32 - low32, np.float32(0)) / np.float32(bins)
                edges = low32 + np.arange(bins + 1, dtype=np.float32) * width
                near = [np.nextafter(edges, np.float32(s)) for s in (-9, 9)]
                iou = np.concatenate([edges, *near, [np.nan, -1, 0, 1, np.inf]]).astype(np.float32)
                got = self.math.sample_interval_of(iou, low32, high32, bins)
                expected = interval_of(torch.from_numpy(iou)[None], low, torch.tensor([high32]), bins)[0]
                np.testing.assert_array_equal(got, expected.numpy())

    def test_key_and_stirred_key_are_the_references(self):
        from detectron_libra.ops.sample_by_iou.reference import second_keys

        keys = np.concatenate([np.random.default_rng(0).random(100_000), [0, 2**-31, 1 - 2**-24, 1]])
        keys = keys.astype(np.float32)
        code = self.math.sample_key_code(keys)
        np.testing.assert_array_equal(code, (keys.astype(np.float64) * 2**31).astype(np.int64))
        second = self.math.sample_second_code(code)
        np.testing.assert_array_equal(second, second_keys(torch.from_numpy(keys)).numpy() * 2**24)

    def test_keys_beyond_their_range_count_as_the_nearer_end(self):
        keys = np.array([-1, -np.inf, np.nan, 1.5, np.inf], np.float32)
        assert self.math.sample_key_code(keys).tolist() == [0, 0, 0, 2**31, 2**31]

    def test_low_set_is_below_the_floor_or_the_zeros(self):
        iou = np.array([-1, 0, 0.1, 0.2, np.nan], np.float32)
        for floor, expected in ((-1, []), (0, [0, 1]), (0.1, [0, 1]), (0.15, [0, 1, 2])):
            assert np.flatnonzero(self.math.sample_low_set(iou, floor)).tolist() == expected

    def test_instance_share_rounds_halves_to_even(self):
        num, instances = [t.ravel() for t in np.meshgrid(np.arange(300), np.arange(1, 50))]
        expected = [round(int(n) / int(i)) + 1 for n, i in zip(num, instances, strict=True)]
        np.testing.assert_array_equal(self.math.sample_instance_share(num, instances), expected)
