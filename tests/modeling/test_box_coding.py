# SPDX-License-Identifier: Apache-2.0
"""Box coding: Detectron's arithmetic, mmdetection's numbers, and finite results where a batch is padded."""

import math

import pytest
import torch

from detectron_libra.geometry import CONTINUOUS, DETECTRON
from detectron_libra.modeling.box_coding import clip_to_size, decode, encode
from detectron_libra.ops.match_boxes import pairwise_iou
from tests import golden

SETS = ("unit", "rcnn", "means")
SIZE = torch.tensor([[150, 200]])
# mmdetection's old coder centres boxes half a pixel lower and does not take a pixel off the last corner.
LEGACY_SHIFT = torch.tensor([-0.5, -0.5, 0.5, 0.5])


def reference(prefix):
    """Arrays, weights and the shift of our deltas that gives the reference's."""
    data, meta = golden.load("box_coder")
    case = next(c for c in meta["parameters"]["sets"] if c["prefix"] == prefix)
    stds = torch.tensor(case["stds"])
    weights = [1 / std for std in case["stds"]]
    return {k: torch.from_numpy(v) for k, v in data.items()}, weights, torch.tensor(case["means"]) / stds


@pytest.mark.parametrize("prefix", SETS)
@pytest.mark.parametrize(("kind", "geometry"), [("", CONTINUOUS), ("legacy_", DETECTRON)])
def test_encode_equals_mmdetection(prefix, kind, geometry):
    data, weights, shift = reference(prefix)
    ours = encode(data["priors"], data["targets"], weights=weights, extent=geometry.extent) - shift
    torch.testing.assert_close(ours, data[f"{prefix}_{kind}enc"], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("prefix", SETS)
@pytest.mark.parametrize(("kind", "geometry"), [("", CONTINUOUS), ("legacy_", DETECTRON)])
def test_decode_and_clip_equal_mmdetection(prefix, kind, geometry):
    data, weights, shift = reference(prefix)
    deltas = data["deltas"] * 0.5 + shift
    ours = decode(deltas, data["priors"], weights=weights, extent=geometry.extent, clip_shrinking=True)
    ours = ours + LEGACY_SHIFT if kind else ours
    torch.testing.assert_close(ours, data[f"{prefix}_{kind}dec"], rtol=1e-5, atol=1e-3)
    clipped = clip_to_size(ours[None], SIZE, extent=geometry.extent)[0]
    torch.testing.assert_close(clipped, data[f"{prefix}_{kind}dec_clip"], rtol=1e-5, atol=1e-3)


def test_class_specific_deltas_broadcast_against_boxes():
    data, weights, _ = reference("rcnn")
    deltas = data["multi_deltas"].view(16, 5, 4)
    ours = decode(deltas, data["priors"][:16, None], weights=weights, extent=0, clip_shrinking=True)
    clipped = clip_to_size(ours.view(1, -1, 4), SIZE, extent=0).view(16, 20)
    torch.testing.assert_close(clipped, data["multi_dec"], rtol=1e-5, atol=1e-3)


def test_iou_equals_mmdetection():
    data, _, _ = reference("unit")
    ours = pairwise_iou(data["targets"][:30], data["priors"][:40], extent=0)
    torch.testing.assert_close(ours, data["iou"])


def test_detectrons_widths_include_the_last_pixel():
    """The rule: width x2 - x1 + 1, centre x1 + width / 2, d = weight (gt - ex) / size; decoded x2 = cx + width/2 -
    1.
    """
    box, target = torch.tensor([[10.0, 20, 19, 39]]), torch.tensor([[15.0, 20, 34, 39]])
    # 10 x 20 pixels around (15, 30); target 20 x 20 around (25, 30).
    deltas = encode(box, target, weights=(10, 10, 5, 5), extent=1)
    torch.testing.assert_close(deltas, torch.tensor([[10.0, 0, 5 * math.log(2), 0]]))
    back = decode(deltas, box, weights=(10, 10, 5, 5), extent=1, clip_shrinking=False)
    torch.testing.assert_close(back, target)


@pytest.mark.parametrize("geometry", [DETECTRON, CONTINUOUS], ids=lambda g: g.name)
def test_decode_undoes_encode(geometry):
    torch.manual_seed(0)
    corner = torch.rand(2, 50, 2) * 100
    boxes = torch.cat((corner, corner + 1 + torch.rand(2, 50, 2) * 80), -1)
    deltas = encode(boxes[0], boxes[1], weights=(10, 10, 5, 5), extent=geometry.extent)
    back = decode(
        deltas, boxes[0], weights=(10, 10, 5, 5), extent=geometry.extent, clip=99, clip_shrinking=True
    )
    torch.testing.assert_close(back, boxes[1], rtol=1e-4, atol=1e-3)


def test_growth_is_bounded_and_shrinking_only_where_asked():
    """The rule: dw, dh = min(., log(1000 / 16)), an upper bound only; mmdetection bounds both sides."""
    box, deltas = torch.tensor([[0.0, 0, 16, 16]]), torch.tensor([[0.0, 0, 9, -9]])
    grown = decode(deltas, box, extent=0, clip_shrinking=False)
    width, height = (grown[0, 2:] - grown[0, :2]).tolist()
    assert width == pytest.approx(1000, rel=1e-5)
    assert height == pytest.approx(16 * math.exp(-9), rel=1e-3)
    both = decode(deltas, box, extent=0, clip_shrinking=True)
    assert (both[0, 3] - both[0, 1]).item() == pytest.approx(16 * 16 / 1000, rel=1e-4)


def test_rows_without_area_stay_finite():
    empty, box = torch.zeros(1, 4), torch.tensor([[1.0, 2, 30, 40]])
    for boxes, targets in ((empty, box), (box, empty), (empty, empty)):
        assert encode(boxes, targets, extent=0).isfinite().all()
    assert (encode(empty, empty, extent=0) == 0).all()
    assert (encode(box, box, extent=0) == 0).all()


def test_half_precision_deltas_are_decoded_in_float32():
    box = torch.tensor([[1000.0, 1000, 1003, 1003]])
    assert decode(torch.zeros(1, 4, dtype=torch.bfloat16), box, extent=0, clip_shrinking=True).equal(box)


def test_each_image_is_clipped_to_its_own_size():
    """The rule: x to [0, W - 1], y to [0, H - 1]."""
    boxes = torch.tensor([-5.0, -5, 500, 500]).repeat(2, 3, 1)
    sizes = torch.tensor([[40, 60], [80, 20]])
    clipped = clip_to_size(boxes, sizes, extent=1)
    assert clipped[0].tolist() == [[0, 0, 59, 39]] * 3
    assert clipped[1].tolist() == [[0, 0, 19, 79]] * 3
