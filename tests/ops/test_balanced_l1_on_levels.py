# SPDX-License-Identifier: Apache-2.0
"""Balanced L1 on a head's raw outputs: which numbers it reads, what it encodes, where the gradient goes."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from detectron_libra.modeling.box_coding import encode
from detectron_libra.modeling.layout import cat_levels
from detectron_libra.ops.balanced_l1 import (
    balanced_l1,
    balanced_l1_on_levels,
    smooth_l1,
)
from tests.ops.levels_scene import ANCHORS, FORMS, PER_CELL, as_list, loss_and_gradients, on_matches, scene

# What it computes.


@pytest.mark.parametrize("extent", [0.0, 1.0])
@pytest.mark.parametrize("form", FORMS)
def test_it_is_the_loss_of_encoded_boxes_of_the_positives(device, each_backend, form, extent):
    deltas, anchors, truth, positive, index = inputs = scene(device)

    def by_hand(levels):
        n, m = positive.nonzero(as_tuple=True)
        wanted = encode(anchors[m], truth[n, index[n, m]], extent=extent)
        pred = cat_levels(levels, 4)[n, m]
        if form == "smooth_l1":
            return smooth_l1(pred, wanted, beta=0.3, reduction="mean", normalizer=7.0)
        return balanced_l1(pred, wanted, beta=0.3, form=form, reduction="mean", normalizer=7.0)

    value, gradients = loss_and_gradients(by_hand, deltas)
    options = {"extent": extent, "form": form, "normalizer": torch.tensor(7.0, device=device)}
    got, got_gradients = loss_and_gradients(lambda levels: on_matches(levels, *inputs[1:], **options), deltas)
    torch.testing.assert_close(got, value)
    torch.testing.assert_close(got_gradients, gradients)
    assert value > 0


def test_a_list_and_a_mask_of_the_same_positives_agree(device, each_backend):
    deltas, anchors, truth, positive, index = scene(device)
    locations, boxes = as_list(truth, positive, index)
    by_mask = loss_and_gradients(lambda x: on_matches(x, anchors, truth, positive, index), deltas)
    by_list = loss_and_gradients(
        lambda x: balanced_l1_on_levels(x, anchors, boxes, locations=locations, extent=1.0, beta=0.3), deltas
    )
    torch.testing.assert_close(by_mask, by_list)


def test_rows_outside_the_batch_or_the_ground_truth_learn_nothing(device, each_backend):
    deltas, anchors, truth, positive, index = scene(device)
    wrong = torch.tensor([-1, -5, 2 * ANCHORS, 2**40], device=device)
    total, gradients = loss_and_gradients(
        lambda x: balanced_l1_on_levels(x, anchors, truth[0, :1].expand(4, 4), locations=wrong, extent=0.0),
        deltas,
    )
    assert total == 0 and not any(g.any() for g in gradients)
    outside = torch.where(torch.arange(ANCHORS, device=device) % 2 == 0, -1, truth.shape[1]).expand_as(index)
    assert on_matches(deltas, anchors, truth, torch.ones_like(positive), outside) == 0


def test_a_number_that_is_not_positive_is_never_read(device, each_backend):
    deltas, anchors, truth, positive, index = scene(device)
    clean = on_matches(deltas, anchors, truth, positive, index)
    start, spoiled = 0, []
    for d in deltas:
        count = d.shape[2] * d.shape[3] * PER_CELL
        mask = positive[:, start : start + count].reshape(len(d), d.shape[2], d.shape[3], PER_CELL)
        mask = mask.permute(0, 3, 1, 2).repeat_interleave(4, 1)
        spoiled.append(d.where(mask, torch.full_like(d, math.nan)))
        start += count
    torch.testing.assert_close(on_matches(spoiled, anchors, truth, positive, index), clean)


def test_huge_and_infinite_deltas_have_finite_gradients_and_nan_stays(device, each_backend):
    deltas, anchors, truth, positive, index = scene(device)
    positive = torch.ones_like(positive)
    deltas[0][:, 0], deltas[0][:, 1], deltas[1][:] = math.inf, -3e38, math.nan
    gradients = loss_and_gradients(lambda x: on_matches(x, anchors, truth, positive, index), deltas)[1]
    assert (gradients[0][:, 0] == 4.5).all() and (gradients[0][:, 1] == -4.5).all()
    assert gradients[1].isnan().all() and gradients[2].isfinite().all()


@pytest.mark.parametrize(("images", "truths"), [(0, 3), (2, 0), (1, 1)])
def test_no_image_no_ground_truth_no_location(device, each_backend, images, truths):
    deltas, anchors, truth, positive, index = scene(device, images=images, truths=truths)
    total, gradients = loss_and_gradients(lambda x: on_matches(x, anchors, truth, positive, index), deltas)
    assert total.isfinite() and (total == 0) == (not positive.any())
    assert [g.shape for g in gradients] == [d.shape for d in deltas]
    none = torch.zeros(0, dtype=torch.int64, device=device)
    total, gradients = loss_and_gradients(
        lambda x: balanced_l1_on_levels(x, anchors, anchors[:0], locations=none, extent=0.0), deltas
    )
    assert total == 0 and not any(g.any() for g in gradients)


# The formulas that both kernels share.


@given(
    box=st.lists(st.integers(-50, 900), min_size=8, max_size=8),
    extent=st.sampled_from([0.0, 1.0]),
)
def test_encoding_is_that_of_box_coding(box, extent):
    math_module = pytest.importorskip("detectron_libra._math")
    got = math_module.encode_deltas(box[:4], box[4:], extent)
    one, other = torch.tensor(box, dtype=torch.float32).reshape(2, 4)
    # Sides of 1e-4 pixels give deltas of 1e7, with float32's precision.
    np.testing.assert_allclose(got, encode(one, other, extent=extent).numpy(), rtol=1e-5, atol=1e-5)


@given(
    maps=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=4),
    images=st.integers(1, 3),
    per_cell=st.integers(1, 3),
    channels_last=st.booleans(),
)
def test_index_rule_is_that_of_cat_levels(maps, images, per_cell, channels_last):
    math_module = pytest.importorskip("detectron_libra._math")
    sizes = [images * 4 * per_cell * h * w for h, w in maps]
    order = "nhwc" if channels_last else "nchw"
    levels = []
    for k, ((h, w), size) in enumerate(zip(maps, sizes, strict=True)):
        memory = torch.arange(size) + 1000 * k
        shape = {"nchw": (images, 4 * per_cell, h, w), "nhwc": (images, h, w, 4 * per_cell)}[order]
        levels.append(memory.reshape(shape).permute(0, 3, 1, 2) if channels_last else memory.reshape(shape))
    rows = cat_levels(levels, 4).flatten(0, 1)
    for location, expected in enumerate(rows.tolist()):
        level, offset, step = math_module.delta_place(location, images, per_cell, maps, channels_last)
        assert [1000 * level + offset + i * step for i in range(4)] == expected
