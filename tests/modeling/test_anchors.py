# SPDX-License-Identifier: Apache-2.0
"""Anchors: Detectron's exact numbers, mmdetection's generator, and the order that heads rely on."""

import pytest
import torch

from detectron_libra.geometry import CONTINUOUS, DETECTRON, TORCHVISION
from detectron_libra.modeling import anchors
from detectron_libra.modeling.anchors import AnchorGrid, base_anchors, octave_anchors
from tests import golden

RATIOS = (0.5, 1.0, 2.0)
RETINANET_RATIOS = (1.0, 2.0, 0.5)


def sides(boxes):
    return [tuple(side) for side in (boxes[:, 2:] - boxes[:, :2] + 1).tolist()]


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        (2, [(48, 24), (32, 32), (24, 48)]),
        (3, [(88, 48), (64, 64), (48, 96)]),
        (4, [(184, 96), (128, 128), (88, 176)]),
        (5, [(360, 176), (256, 256), (184, 368)]),
        (6, [(728, 368), (512, 512), (360, 720)]),
    ],
)
def test_rpn_sides_of_each_level_are_detectrons(level, expected):
    """The rule: ws = round(sqrt(stride^2 / ratio)), hs = round(ws ratio), times size / stride; size 32 * 2^(l - 2)."""
    assert sides(base_anchors(2**level, [32 * 2 ** (level - 2)], RATIOS, geometry=DETECTRON)) == expected


def test_rpn_boxes_of_p2_are_detectrons():
    """The rule: the base cell is (0, 0, stride - 1, stride - 1), and anchors are centred at (stride - 1) / 2."""
    boxes = base_anchors(4, [32], RATIOS, geometry=DETECTRON)
    assert boxes.dtype == torch.float32
    assert boxes.tolist() == [[-22, -10, 25, 13], [-14, -14, 17, 17], [-10, -22, 13, 25]]


def test_c4_anchors_go_ratio_by_ratio():
    """The rule: all RPN.SIZES on one level of stride 16, ratio-major, then by size."""
    boxes = base_anchors(16, (32, 64, 128, 256, 512), RATIOS, geometry=DETECTRON)
    assert len(boxes) == 15
    assert boxes[:5].tolist() == [
        [-15, -4, 30, 19],
        [-38, -16, 53, 31],
        [-84, -40, 99, 55],
        [-176, -88, 191, 103],
        [-360, -184, 375, 199],
    ]


@pytest.mark.parametrize(
    ("level", "row", "expected"),
    [
        (3, 0, [-12, -12, 19, 19]),
        (3, 1, [-8, -20, 15, 27]),
        (3, 2, [-18, -8, 25, 15]),
        (3, 3, [-16.1587, -16.1587, 23.1587, 23.1587]),
        (3, 6, [-21.3984, -21.3984, 28.3984, 28.3984]),
        (4, 1, [-14, -36, 29, 51]),
        (4, 2, [-38, -16, 53, 31]),
        (7, 0, [-192, -192, 319, 319]),
        (7, 1, [-118, -300, 245, 427]),
        (7, 2, [-298, -116, 425, 243]),
    ],
)
def test_retinanet_boxes_are_detectrons(level, row, expected):
    """The rule: octaves outside, ratios in the order of the key inside; size = 4 * 2^(octave / 3) * 2^level."""
    boxes = octave_anchors(2**level, RETINANET_RATIOS, geometry=DETECTRON)
    assert boxes.shape == (9, 4)
    assert boxes[row].tolist() == pytest.approx(expected, abs=1e-4)


def test_retinanet_sides_between_octaves_are_detectrons():
    both = sides(octave_anchors(8, RETINANET_RATIOS, geometry=DETECTRON))
    assert both[4] == pytest.approx((30.2381, 60.4762), abs=1e-4)
    assert both[8] == pytest.approx((69.8456, 38.0976), abs=1e-4)


def reference_case(prefix):
    data, meta = golden.load("anchors")
    case = next(c for c in meta["parameters"]["generators"] if c["prefix"] == prefix)
    return data, case


def test_exact_rpn_anchors_equal_mmdetection():
    data, case = reference_case("rpn")
    bases = [base_anchors(s, [8 * s], case["ratios"], geometry=CONTINUOUS) for s in case["strides"]]
    grid = AnchorGrid(bases, case["strides"])(case["featmap_sizes"], "cpu")
    for level, (base, boxes) in enumerate(zip(bases, grid, strict=True)):
        torch.testing.assert_close(base, torch.from_numpy(data[f"rpn_base{level}"]))
        expected = torch.from_numpy(data[f"rpn_grid{level}"])
        torch.testing.assert_close(boxes[: len(expected)], expected)
        height, width = case["featmap_sizes"][level]
        assert len(boxes) == height * width * 3


def test_exact_retinanet_anchors_equal_mmdetection_in_another_order():
    data, case = reference_case("retina")
    # Ours goes octave by octave, the reference ratio by ratio.
    order = torch.arange(9).view(3, 3).T.flatten()
    bases = [octave_anchors(s, case["ratios"], geometry=CONTINUOUS) for s in case["strides"]]
    grid = AnchorGrid(bases, case["strides"])(case["featmap_sizes"], "cpu")
    for level, (base, boxes) in enumerate(zip(bases, grid, strict=True)):
        torch.testing.assert_close(base[order], torch.from_numpy(data[f"retina_base{level}"]))
        expected = torch.from_numpy(data[f"retina_grid{level}"])
        ours = boxes.view(-1, 9, 4)[:, order].reshape(-1, 4)
        torch.testing.assert_close(ours[: len(expected)], expected)


def test_whole_anchors_equal_torchvision():
    """Numbers of torchvision 0.28's RetinaNet for an image of 800 x 1344: P5 to P7 are rounded up there."""
    strides = [8, 16, 32, 64, 128]
    bases = [octave_anchors(s, RATIOS, geometry=TORCHVISION) for s in strides]
    assert bases[0][::3].tolist() == [[-23, -11, 23, 11], [-28, -14, 28, 14], [-35, -18, 35, 18]]
    assert bases[2][:3].tolist() == [[-91, -45, 91, 45], [-64, -64, 64, 64], [-45, -91, 45, 91]]
    assert bases[2][3].tolist() == [-114, -57, 114, 57] and bases[2][7].tolist() == [-102, -102, 102, 102]
    maps = [(100, 168), (50, 84), (25, 42), (13, 21), (7, 11)]
    last = [boxes[-1].tolist() for boxes in AnchorGrid(bases, strides, fit=True)(maps, "cpu")]
    assert last[2:] == [[1240, 624, 1384, 912], [1136, 445, 1424, 1019], [933, 110, 1507, 1258]]


def test_grid_goes_row_column_anchor_by_whole_strides():
    """The rule: cell k is shifted by k * stride, without half a pixel; anchors of a cell are neighbours."""
    base = base_anchors(16, [32, 64], [1.0], geometry=DETECTRON)
    (boxes,) = AnchorGrid([base], [16])([(2, 3)], "cpu")
    cells = boxes.view(2, 3, 2, 4)
    for y in range(2):
        for x in range(3):
            assert torch.equal(cells[y, x], base + torch.tensor([16 * x, 16 * y, 16 * x, 16 * y]))


def test_grid_keeps_recent_sizes_only(monkeypatch):
    monkeypatch.setattr(anchors, "CACHED_SIZES", 2)
    grid = AnchorGrid([base_anchors(8, [32], [1.0], geometry=CONTINUOUS)], [8])
    first = grid([(1, 1)], "cpu")
    assert grid([(1, 1)], "cpu") is first
    for width in (2, 3):
        grid([(1, width)], "cpu")
    assert grid([(1, 1)], "cpu") is not first


def test_grid_refuses_another_number_of_levels():
    base = base_anchors(8, [32], [1.0], geometry=CONTINUOUS)
    with pytest.raises(ValueError, match="strides"):
        AnchorGrid([base], [8, 16])
    with pytest.raises(ValueError, match="levels"):
        AnchorGrid([base], [8])([(1, 1), (1, 1)], "cpu")
