# SPDX-License-Identifier: Apache-2.0
"""Balanced L1 on a head's raw outputs: kernel against definition, and the promises of every operator."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from detectron_libra.ops.balanced_l1 import balanced_l1_on_levels, balanced_l1_on_matches
from tests.ops import harness
from tests.ops.harness import needs_kernels
from tests.ops.levels_scene import FORMS, as_list, loss_and_gradients, on_matches, scene


@needs_kernels
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_kernel_equals_reference(device, form, dtype):
    deltas, *rest = scene(device, dtype)
    wide = dtype in (torch.float64, torch.float32)
    tolerance = {} if wide else {"rtol": 2e-2, "atol": 2e-3}
    harness.check_against_reference(
        lambda *levels: on_matches(levels, *rest, form=form, normalizer=5.0), deltas, **tolerance
    )


@needs_kernels
@given(
    maps=st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=5),
    images=st.integers(0, 3),
    truths=st.integers(0, 3),
    per_cell=st.integers(1, 3),
    layout=st.lists(st.sampled_from(["contiguous", "channels_last", "strided"]), min_size=5, max_size=5),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16]),
    seed=st.integers(0, 99),
)
def test_any_sizes_layouts_and_dtypes(maps, images, truths, per_cell, layout, dtype, seed):
    deltas, *rest = scene("cpu", dtype, images, truths, maps, per_cell, seed)
    levels = [harness.layouts(d)[name] for d, name in zip(deltas, layout, strict=False)]
    run = lambda x: on_matches(x, *rest)  # noqa: E731
    got = harness.with_backend("compiled", lambda: loss_and_gradients(run, levels))
    expected = harness.with_backend("reference", lambda: loss_and_gradients(run, deltas))
    tolerance = {"rtol": 2e-2, "atol": 2e-2} if dtype == torch.bfloat16 else {}
    torch.testing.assert_close(got, expected, **tolerance)


@needs_kernels
def test_the_gradient_has_each_levels_own_memory_format(device):
    deltas, *rest = scene(device)
    deltas[0] = deltas[0].contiguous(memory_format=torch.channels_last)
    gradients = loss_and_gradients(lambda x: on_matches(x, *rest), deltas)[1]
    assert [g.stride() for g in gradients] == [d.stride() for d in deltas]


@needs_kernels
@pytest.mark.parametrize("form", FORMS)
def test_gradients_against_finite_differences(device, form):
    deltas, *rest = scene(device, maps=((2, 2), (1, 1)))
    harness.check_gradients(lambda *levels: on_matches(levels, *rest, form=form), deltas)


@needs_kernels
def test_registration_passes_opcheck(device):
    deltas, anchors, truth, positive, index = scene(device)
    locations, boxes = as_list(truth, positive, index)
    deltas[0] = deltas[0].contiguous(memory_format=torch.channels_last)
    for d in deltas:
        d.requires_grad_()
    op = torch.ops.detectron_libra.balanced_l1_on_levels.default
    seven = torch.tensor(7.0, device=device)
    for chosen in ((truth, None, positive, index, None), (boxes, locations, None, None, seven)):
        harness.check_op(op, (deltas, anchors, *chosen, 0.5, 1.0, 0, 0.5, 1.5, 0.3, True))


@needs_kernels
def test_equal_bits_from_run_to_run(device):
    deltas, *rest = scene(device, maps=((60, 70), (30, 35)), truths=9)
    harness.check_repeats(lambda *levels: on_matches(levels, *rest), deltas)


@needs_kernels
def test_compiles_in_one_graph(device):
    deltas, *rest = scene(device)
    harness.check_compiles(lambda *levels: on_matches(levels, *rest, normalizer=3.0), deltas)


@needs_kernels
def test_second_derivative_is_refused(device):
    deltas, *rest = scene(device)
    leaves = [d.requires_grad_() for d in deltas]
    gradients = torch.autograd.grad(on_matches(leaves, *rest), leaves, create_graph=True)
    with pytest.raises(NotImplementedError, match="second derivative"):
        gradients[0].sum().backward()


def test_a_second_backward_pass_and_a_learning_normalizer(each_backend):
    deltas, *rest = scene(dtype=torch.float64)
    leaves = [d.requires_grad_() for d in deltas]
    divisor = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    loss = on_matches(leaves, *rest, normalizer=divisor)
    first = [g.clone() for g in torch.autograd.grad(loss, [*leaves, divisor], retain_graph=True)]
    torch.testing.assert_close(torch.autograd.grad(loss, [*leaves, divisor]), tuple(first))
    torch.testing.assert_close(first[-1], -loss.detach() / 3)


def test_autocast_changes_nothing(each_backend):
    deltas, *rest = scene(dtype=torch.bfloat16)
    plain = on_matches(deltas, *rest)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(on_matches(deltas, *rest), plain) and plain.dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("deltas", lambda a: a | {"deltas": []}),
        ("deltas", lambda a: a | {"deltas": [a["deltas"][0][:, :6]]}),
        ("deltas", lambda a: a | {"deltas": [a["deltas"][0], a["deltas"][1].double()]}),
        ("deltas", lambda a: a | {"deltas": [d.long() for d in a["deltas"]]}),
        ("anchors", lambda a: a | {"anchors": a["anchors"][1:]}),
        ("anchors", lambda a: a | {"anchors": a["anchors"].double()}),
        ("boxes", lambda a: a | {"boxes": a["boxes"][0]}),
        ("boxes", lambda a: a | {"boxes": a["boxes"][:1]}),
        ("positive", lambda a: a | {"positive": a["positive"].long()}),
        ("index", lambda a: a | {"index": a["index"].int()}),
        ("index", lambda a: a | {"index": a["index"][:, 1:]}),
        ("anchors", lambda a: a | {"anchors": a["anchors"].to("meta")}),
    ],
)
def test_wrong_tensors_are_refused_by_name(each_backend, name, change):
    names = ("deltas", "anchors", "boxes", "positive", "index")
    arguments = change(dict(zip(names, scene(), strict=True)))
    with pytest.raises(RuntimeError, match=name):
        balanced_l1_on_matches(**arguments, extent=1.0)


def test_wrong_options_and_lists_are_refused(each_backend):
    deltas, anchors, truth, positive, index = scene()
    with pytest.raises(ValueError, match="form is 'published'"):
        on_matches(deltas, anchors, truth, positive, index, form="published")
    with pytest.raises(ValueError, match="beta=-1"):
        on_matches(deltas, anchors, truth, positive, index, beta=-1)
    for locations, boxes, name in (
        (torch.zeros(2, 1, dtype=torch.int64), torch.zeros(2, 4), "locations"),
        (torch.zeros(2), torch.zeros(2, 4), "locations"),
        (torch.zeros(2, dtype=torch.int64), torch.zeros(3, 4), "boxes"),
    ):
        with pytest.raises(RuntimeError, match=name):
            balanced_l1_on_levels(deltas, anchors, boxes, locations=locations, extent=0.0)


@needs_kernels
def test_the_operator_itself_refuses_what_the_function_would():
    deltas, anchors, truth, positive, index = scene()
    op, numbers = torch.ops.detectron_libra.balanced_l1_on_levels.default, (1.0, 1.0, 0, 0.5, 1.5, 0.3, False)
    for arguments, message in (
        ((deltas, anchors, truth, None, None, None), "give locations, or positive and index"),
        ((deltas, anchors[1:], truth, None, positive, index), "anchors must have size"),
        ((deltas, anchors, truth[:, :, :3], None, positive, index), "boxes must have size 4"),
        ((deltas, anchors, truth, None, positive[:, 1:], index), "positive must have size"),
        ((deltas * 6, anchors, truth, None, positive, index), "at most 16 levels"),
        (([deltas[0][:, :6]], anchors, truth, None, positive, index), "4 channels an anchor"),
    ):
        with pytest.raises(RuntimeError, match=message):
            op(*arguments, None, *numbers)
