# SPDX-License-Identifier: Apache-2.0
"""The best possible recall of anchors, against overlaps worked out by hand and against the network's own anchors."""

import numpy as np
import pytest
import torch

from detectron_libra.analysis.anchor_recall import best_overlaps, cells_of, recall_tables
from detectron_libra.builders.detector import build_detector
from detectron_libra.builders.measure_anchors import grid
from detectron_libra.geometry import CONTINUOUS
from detectron_libra.modeling.anchors import AnchorGrid, base_anchors
from detectron_libra.ops.match_boxes import pairwise_iou
from tests.analysis.scenes import inventory
from tests.builders.small import config
from tests.modeling.scenes import batch


def squares(side=16.0, stride=16):
    """One square anchor per cell, centred at the cells' corners."""
    return AnchorGrid([base_anchors(stride, [side], [1.0], geometry=CONTINUOUS)], [stride])


def test_a_box_that_is_an_anchor_is_covered_and_one_of_twice_its_area_by_half():
    # Anchors of 16 around (16, 16), ...: [8, 8, 24, 24] is one; 16 x 32 holds one wholly, 16 x 64 too
    image = ("", 128, 128, [(1, 8, 8, 16, 16), (2, 8, 8, 16, 32), (2, 40, 8, 16, 64)])
    found = inventory(image, side=128)
    best = best_overlaps(found, squares(), 16)
    assert best == pytest.approx([1.0, 0.5, 0.25])
    tables = recall_tables(found, best, 0.5)
    assert tables["recall"] == pytest.approx(2 / 3, rel=1e-4)
    assert tables["by_class"]["a"]["recall"] == {"0.4": 1, "0.5": 1, "0.6": 1, "0.7": 1}
    assert tables["by_class"]["b"]["recall"] == {"0.4": 0.5, "0.5": 0.5, "0.6": 0, "0.7": 0}
    assert tables["by_class"]["b"]["mean_best_iou"] == 0.375
    assert tables["by_class"]["c"] == {
        "boxes": 0,
        "mean_best_iou": None,
        "recall": dict.fromkeys(("0.4", "0.5", "0.6", "0.7")),
    }
    assert tables["by_size"]["small"]["boxes"] == 2 and tables["by_size"]["medium"]["boxes"] == 1


def test_boxes_are_compared_at_the_size_that_the_network_sees():
    image = ("", 256, 256, [(1, 16, 16, 32, 32)])
    assert best_overlaps(inventory(image, side=128), squares(), 16) == pytest.approx([1.0])
    assert best_overlaps(inventory(image, side=256), squares(), 16) == pytest.approx([0.25])


def test_images_of_many_sizes_keep_their_boxes_apart():
    boxes = [(1, 8, 8, 16, 16)]
    images = [("", 64 + 16 * (k % 3), 64, boxes * (k % 4)) for k in range(40)]
    found = inventory(*images, side=64)
    best = best_overlaps(found, squares(), 16)
    heights = found.sizes[found.image, 0]
    scales = found.scales[found.image]
    assert len(best) == sum(k % 4 for k in range(40)) and (scales == 1).all() and set(heights) == {64, 80, 96}
    assert best == pytest.approx(np.ones(len(best)))


@pytest.mark.parametrize(("kind", "padding"), [("retinanet", 32), ("faster_rcnn", 32), ("c4", 1)])
@pytest.mark.parametrize("size", [(96, 128), (70, 100)])
def test_anchors_without_a_network_are_those_that_the_network_makes(kind, padding, size):
    cfg = config(kind, FPN__COARSEST_STRIDE=32)
    torch.manual_seed(0)
    model = build_detector(cfg, 4).eval()
    with torch.no_grad():
        levels = model.features(batch([size], multiple=padding))
        scored = model.score_anchors(levels)
    own = grid(cfg)
    ours = own(cells_of(own, *size, padding), "cpu")
    theirs = torch.cat(list(scored[2]))
    assert torch.equal(torch.cat(ours), theirs)


@pytest.mark.parametrize("geometry", ["detectron", "continuous", "torchvision"])
@pytest.mark.parametrize("kind", ["retinanet", "faster_rcnn", "c4"])
def test_the_nearest_cells_hold_the_best_of_all_anchors(kind, geometry):
    own = grid(config(kind, MODEL__BOX_GEOMETRY=geometry))
    extent = 1.0 if geometry == "detectron" else 0.0
    rng = np.random.default_rng(0)
    sizes = [(70, 100), (128, 64), (96, 131)]
    images = []
    for height, width in sizes:
        corners = np.sort(rng.random((60, 2, 2)), axis=1) * [width - 1, height - 1]
        boxes = np.concatenate([corners[:, 0], corners[:, 1] - corners[:, 0] + 1], axis=1)
        images.append(("", height, width, [(1, *box) for box in boxes.tolist()]))
    found = inventory(*images, side=64, extent=extent)
    every = []
    for n in range(len(sizes)):
        rows = found.image == n
        height, width = np.rint(found.sizes[n] * found.scales[n]).astype(int).tolist()
        anchors = torch.cat(own(cells_of(own, height, width, 32), "cpu"))
        boxes = torch.from_numpy(found.boxes[rows] * found.scales[n]).float()
        every.append(pairwise_iou(anchors, boxes, extent=extent).amax(1).numpy())
    best = best_overlaps(found, own, 32)
    assert len(best) == 180 and best == pytest.approx(np.concatenate(every), abs=1e-5)
