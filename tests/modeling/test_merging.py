# SPDX-License-Identifier: Apache-2.0
"""Views of an image: back to the original by the geometry's rule, and merged as the keys say."""

from dataclasses import replace

import pytest
import torch

from detectron_libra.builders.detector import build_detector
from detectron_libra.geometry import GEOMETRIES
from detectron_libra.modeling.merging import Merging, merge
from detectron_libra.modeling.postprocess import in_original
from detectron_libra.modeling.suppression import Candidates
from detectron_libra.structures import ImageMeta
from tests.builders.small import config
from tests.modeling.scenes import batch

BOX = torch.tensor([[10.0, 5, 30, 25]])


def meta(**changes):
    return ImageMeta(1, "1.jpg", 40, 100, 1.0, **changes)


def build(kind, **changes):
    torch.manual_seed(1)
    return build_detector(config(kind, **changes), 4).eval()


def candidates(*rows):
    """Rows of (x1, score, class); boxes are 10 by 10 pixels."""
    x1, scores, classes = (torch.tensor(column) for column in zip(*rows, strict=True))
    boxes = torch.stack([x1, torch.zeros_like(x1), x1 + 10, torch.full_like(x1, 10)], 1)
    return Candidates(boxes, scores, classes)


@pytest.mark.parametrize(("name", "extent"), [("detectron", 1), ("continuous", 0)])
def test_a_mirrored_box_comes_back_by_the_rule_of_its_geometry(name, extent):
    """x' = W - x - 1 where corners name pixels, W - x where they are edges."""
    found = in_original(BOX, meta(flip_x=True), GEOMETRIES[name])
    assert found.tolist() == [[100 - 30 - extent, 5, 100 - 10 - extent, 25]]
    found = in_original(BOX, meta(flip_y=True), GEOMETRIES[name])
    assert found.tolist() == [[10, 40 - 25 - extent, 30, 40 - 5 - extent]]


@pytest.mark.parametrize("stretch", [0.5, 2.0])
def test_a_stretched_box_comes_back_by_its_width_alone(stretch):
    """Detectron's aspect_ratio: x / ratio, y as it is."""
    found = in_original(BOX, meta(stretch=stretch), GEOMETRIES["detectron"])
    assert found.tolist() == [[10 / stretch, 5, 30 / stretch, 25]]


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
@pytest.mark.parametrize("stretch", [1.0, 0.37, 1.9])
@pytest.mark.parametrize("flips", [(False, False), (True, False), (True, True)])
def test_showing_and_taking_back_are_inverse(geometry, stretch, flips):
    """A mirrored, stretched image is mirrored about its own width, which is a whole number of pixels."""
    shown = meta(stretch=stretch, flip_x=flips[0], flip_y=flips[1])
    boxes = shown.to_shown(BOX, extent=geometry.extent)
    assert torch.equal(boxes, BOX) == (shown == meta())
    torch.testing.assert_close(in_original(boxes, shown, geometry), BOX)


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
@pytest.mark.parametrize("stretch", [0.5, 1.0, 2.0])
def test_boxes_are_clipped_to_the_image_as_shown_and_to_the_original(geometry, stretch):
    wide = torch.tensor([[-50.0, -50, 500, 500]])
    (found,) = in_original(wide, meta(stretch=stretch, flip_x=True), geometry).tolist()
    assert found[1:] == pytest.approx([0, 100 - geometry.extent, 40 - geometry.extent], abs=1)
    assert found[0] >= 0 and found[2] <= 100 - geometry.extent and found[3] <= 40 - geometry.extent


def test_a_union_has_the_candidates_of_all_views_in_their_order():
    """ "UNION stacks before NMS": thresholds were applied in each view."""
    views = [candidates((0.0, 0.9, 1), (1.0, 0.01, 2)), candidates((2.0, 0.5, 1)), candidates((3.0, 0.7, 3))]
    found = merge(views, Merging(3), score_threshold=0.05)
    assert found.scores.tolist() == pytest.approx([0.9, 0.01, 0.5, 0.7])
    assert found.classes.tolist() == [1, 2, 1, 3] and found.boxes[:, 0].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("scores", "boxes", "wanted"),
    [
        ("AVG", "AVG", [(2.0, 0.5, 1), (1.0, 0.07, 3)]),
        ("AVG", "ID", [(4.0, 0.5, 1), (2.0, 0.07, 3)]),
        ("ID", "AVG", [(2.0, 0.2, 1), (9.0, 0.06, 2)]),
        ("ID", "ID", [(4.0, 0.2, 1), (10.0, 0.06, 2)]),
    ],
)
def test_means_are_over_views_and_identity_is_the_last(scores, boxes, wanted):
    """SCORE_HEUR and COORD_HEUR of the same proposals; the score threshold is for the merged score."""
    views = [
        candidates((0.0, 0.8, 1), (8.0, 0.02, 2), (0.0, 0.12, 3)),
        candidates((4.0, 0.2, 1), (10.0, 0.06, 2), (2.0, 0.02, 3)),
    ]
    found = merge(views, Merging(2, scores, boxes), score_threshold=0.05)
    rows = torch.stack([found.boxes[:, 0], found.scores, found.classes.float()], 1)
    torch.testing.assert_close(rows, torch.tensor(wanted))


def test_every_candidate_is_in_the_same_row_whatever_the_image_looks_like():
    """Means need the same rows: all classes of all proposals that are no padding."""
    model = build("fast_rcnn", TEST__SCORE_THRESH=0.3)
    bright, dark = batch([(96, 128), (64, 64)], seed=0), batch([(96, 128), (64, 64)], seed=1)
    dark = replace(dark, proposals=bright.proposals)
    first, second = model.candidates(bright, every=True), model.candidates(dark, every=True)
    for n, (a, b) in enumerate(zip(first, second, strict=True)):
        assert len(a.scores) == 3 * int(bright.proposals.valid[n].sum()) and torch.equal(a.classes, b.classes)
        assert not torch.equal(a.scores, b.scores)
    assert len(model.candidates(bright)[0].scores) < len(first[0].scores)


@pytest.mark.parametrize("kind", ["retinanet", "faster_rcnn", "c4", "fast_rcnn"])
def test_detections_are_what_is_chosen_of_the_candidates_of_one_view(kind):
    """Plain testing and augmentation go the same way: a union of one view is the plain test."""
    model = build(kind, TEST__SCORE_THRESH=0.01)
    images = batch([(96, 128), (64, 64)])
    for found, plain in zip(model.candidates(images), model(images), strict=True):
        assert len(plain) > 0
        rows = torch.cat([found.boxes, found.scores[:, None], found.classes[:, None]], 1).tolist()
        for box, score, label in zip(plain.boxes, plain.scores, plain.classes, strict=True):
            assert [*box.tolist(), score.item(), float(label)] in rows


@pytest.mark.parametrize("kind", ["retinanet", "faster_rcnn", "c4", "fast_rcnn"])
def test_without_regression_boxes_are_proposals_or_anchors(kind):
    """TEST.BBOX_REG False, from the key to the box in pixels of the original."""
    model = build(kind, TEST__BBOX_REG=False, TEST__SCORE_THRESH=0.01)
    images = batch([(96, 128)], scales=[2.0])
    levels = model.features(images)
    if kind == "retinanet":
        given = torch.cat(list(model.anchors([tuple(level.shape[2:]) for level in levels], levels[0].device)))
    elif kind == "fast_rcnn":
        given = images.proposals.boxes[0]
    else:
        given = model.choose_proposals(model.score_anchors(levels), images).boxes[0]
    given = in_original(given / 2, images.metas[0], GEOMETRIES["detectron"]).tolist()
    (found,) = model(images)
    assert len(found) > 0 and all(box in given for box in found.boxes.tolist())
