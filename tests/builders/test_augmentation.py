# SPDX-License-Identifier: Apache-2.0
"""Test-time augmentation from keys to detections: the order of the views, and one object that all of them show."""

from dataclasses import replace

import pytest
import torch
from PIL import Image
from torch import nn

from detectron_libra.builders.augmentation import merging, views
from detectron_libra.builders.data import test_loader as loader_of
from detectron_libra.builders.detector import build_detector
from detectron_libra.data.folder import as_dataset
from detectron_libra.data.proposals import with_proposals
from detectron_libra.engine.test import detect
from detectron_libra.geometry import GEOMETRIES
from detectron_libra.modeling.merging import Merging
from detectron_libra.modeling.postprocess import in_original
from detectron_libra.modeling.suppression import Candidates, DetectionRule
from tests.builders.small import config
from tests.modeling.scenes import batch

EVERY_VIEW = {
    "TEST__SCALE": 64,
    "TEST__MAX_SIZE": 128,
    "TEST__BBOX_AUG__ENABLED": True,
    "TEST__BBOX_AUG__H_FLIP": True,
    "TEST__BBOX_AUG__SCALES": "(96, 120)",
    "TEST__BBOX_AUG__MAX_SIZE": 150,
    "TEST__BBOX_AUG__SCALE_H_FLIP": True,
    "TEST__BBOX_AUG__ASPECT_RATIOS": "(0.5, 2.0)",
    "TEST__BBOX_AUG__ASPECT_RATIO_H_FLIP": True,
    "DATA__WORKERS": 0,
}
#: A white box on black in an image of 60 by 80 pixels; x1 y1 x2 y2 of its edges.
BOX = (8, 6, 38, 52)


def shown(cfg):
    return [(v.side, v.max_size, v.flip_x, v.stretch) for v in views(cfg)]


def test_views_come_in_detectrons_order():
    """ "Order hflip, scales(+hflip), aspect ratios(+hflip), identity last"; MAX_SIZE is for the scales alone."""
    assert shown(config("faster_rcnn", **EVERY_VIEW)) == [
        (64, None, True, 1.0),
        (96, 150, False, 1.0),
        (96, 150, True, 1.0),
        (120, 150, False, 1.0),
        (120, 150, True, 1.0),
        (64, None, False, 0.5),
        (64, None, True, 0.5),
        (64, None, False, 2.0),
        (64, None, True, 2.0),
        (64, None, False, 1.0),
    ]


def test_each_mirror_image_has_a_key_of_its_own():
    cfg = config("faster_rcnn", **EVERY_VIEW | {"TEST__BBOX_AUG__SCALE_H_FLIP": False})
    assert [flip for *_, flip, _ in shown(cfg)] == [True, False, False, False, True, False, True, False]
    cfg = config("faster_rcnn", TEST__SCALE=64, TEST__BBOX_AUG__ENABLED=True)
    assert shown(cfg) == [(64, None, False, 1.0)] and merging(cfg) == Merging(1)


def test_without_the_switch_the_other_keys_do_nothing():
    cfg = config("faster_rcnn", **EVERY_VIEW | {"TEST__BBOX_AUG__ENABLED": False})
    assert shown(cfg) == [(64, None, False, 1.0)] and merging(cfg) is None


class Finder(nn.Module):
    """Finds what is bright, and remembers how it was shown; each view reports a class of its own."""

    def __init__(self, geometry):
        super().__init__()
        self.detection = DetectionRule(0.05, 0.5, 100, geometry, 4.0)
        self.seen = []

    def candidates(self, batch):
        self.seen.append([(m.file, m.flip_x, m.stretch) for m in batch.metas])
        geometry, found = self.detection.geometry, []
        for image, meta in zip(batch.images, batch.metas, strict=True):
            bright = (image.float().mean(0) > 127).nonzero().flip(1)
            box = torch.cat([bright.amin(0), bright.amax(0) + 1 - geometry.extent])[None] / meta.scale
            label = torch.tensor([len(self.seen)])
            found.append(Candidates(in_original(box, meta, geometry), torch.tensor([0.9]), label))
        return found


@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.parametrize("turned", [False, True], ids=["wide", "tall"])
def test_all_views_see_the_object_in_the_same_place(name, turned, tmp_path):
    """Pixels and boxes go through each view alike: what is found comes back to where the object is."""
    geometry, (x1, y1, x2, y2) = GEOMETRIES[name], BOX
    box = (y1, x1, y2, x2) if turned else BOX
    size = (60, 80) if turned else (80, 60)
    image = Image.new("RGB", size)
    image.paste((255, 255, 255), box)
    for k in (1, 2, 3):
        image.save(tmp_path / f"{k}.png")
    dataset = as_dataset([str(tmp_path / f"{k}.png") for k in (1, 2, 3)], ("object",))
    cfg = config("faster_rcnn", MODEL__BOX_GEOMETRY=name, TEST__IMS_PER_BATCH=2, **EVERY_VIEW)
    loader, model = loader_of(cfg, dataset, pin_memory=False), Finder(geometry)
    found = detect(model, loader, merging=merging(cfg)).detections
    assert len(loader) == 20 and [len(seen) for seen in model.seen] == [2] * 10 + [1] * 10
    wanted = torch.tensor([box], dtype=torch.float32)
    wanted[:, 2:] -= geometry.extent
    for k, detections in enumerate(found.values()):
        assert sorted(detections.classes.tolist()) == [10 * (k // 2) + v for v in range(1, 11)]
        # half an image is seen at half its width
        torch.testing.assert_close(detections.boxes, wanted.expand(10, 4), rtol=0, atol=1.5)
        plain = detections.boxes[detections.classes % 10 == 0]
        torch.testing.assert_close(plain, wanted, rtol=0, atol=0.7)


@pytest.fixture
def noise(tmp_path):
    """One image of noise, as a data set."""
    pixels = torch.randint(256, (60, 80, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    Image.fromarray(pixels.numpy()).save(tmp_path / "noise.png")
    return as_dataset([str(tmp_path / "noise.png")], ("a", "b", "c"))


def rows(detections):
    columns = (detections.boxes, detections.scores[:, None], detections.classes[:, None])
    return {tuple(row) for row in torch.cat(columns, 1).tolist()}


@pytest.mark.parametrize("kind", ["retinanet", "faster_rcnn", "c4"])
def test_every_detector_adds_what_its_views_find(kind, noise):
    """A union before suppression: where nothing is suppressed, the plain test is a part of it."""
    keys = {"TEST__NMS": 1.0, "TEST__SCORE_THRESH": 0.01, "TEST__DETECTIONS_PER_IM": 0}
    keys |= {"MODEL__BOX_GEOMETRY": "continuous", "RETINANET__INFERENCE_TH": 0.001}
    all_views = config(kind, **keys, **EVERY_VIEW)
    plain = config(kind, TEST__SCALE=64, TEST__MAX_SIZE=128, DATA__WORKERS=0, **keys)
    torch.manual_seed(0)
    model = build_detector(plain, 4)
    found = []
    for cfg in (plain, all_views):
        result = detect(model, loader_of(cfg, noise, pin_memory=False), merging=merging(cfg))
        found += [rows(d) for d in result.detections.values()]
    assert len(found) == 2 and found[0] and found[0] < found[1]


@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.parametrize(("heuristic", "times"), [("AVG", 1), ("ID", 1), ("UNION", 10)])
def test_stored_proposals_are_shown_as_each_view_is(name, heuristic, times, noise):
    """Fixed proposals are mirrored, stretched and scaled with the image; unregressed they come back unchanged."""
    boxes = torch.tensor([[8.0, 6, 38, 52], [0, 0, 70, 30], [40, 20, 60, 58]])
    content = {
        "boxes": [boxes.numpy()],
        "scores": [torch.ones(3).numpy()],
        "ids": [noise.records[0].image_id],
    }
    heuristics = {"TEST__BBOX_AUG__SCORE_HEUR": heuristic, "TEST__BBOX_AUG__COORD_HEUR": heuristic}
    keys = {
        "TEST__NMS": 1.0,
        "TEST__SCORE_THRESH": 0.0,
        "TEST__DETECTIONS_PER_IM": 0,
        "TEST__BBOX_REG": False,
    }
    cfg = config("fast_rcnn", MODEL__BOX_GEOMETRY=name, DEDUP_BOXES=0.0, **keys, **heuristics, **EVERY_VIEW)
    stored = with_proposals(noise, content, "test", extent=GEOMETRIES[name].extent, limit=0)
    model, seen = build_detector(cfg, 4), []
    model.regions.predictor.register_forward_hook(lambda *a: seen.append(len(a[1][0])))
    # in Detectron's geometry equal boxes suppress each other at any threshold
    model.regions.detection = replace(model.detection, nms_threshold=2.0)
    (found,) = detect(
        model, loader_of(cfg, stored, pin_memory=False), merging=merging(cfg)
    ).detections.values()
    assert seen == [3] * 10 and len(found) == 3 * 3 * times
    for box in found.boxes:
        assert (boxes - box).abs().amax(1).min() < 1e-3
    assert len(found.boxes.round().unique(dim=0)) == 3


def test_stored_proposals_are_averaged_over_views():
    """AVG, fixed proposals: the mean over an image and itself is the plain test, over another image it is not."""
    cfg = config(
        "fast_rcnn",
        TEST__BBOX_AUG__SCORE_HEUR="AVG",
        TEST__BBOX_AUG__COORD_HEUR="AVG",
        TEST__BBOX_AUG__ENABLED=True,
    )
    torch.manual_seed(0)
    model = build_detector(cfg, 4)
    image, other = batch([(64, 64), (50, 60)]), batch([(64, 64), (50, 60)], seed=1)
    other = replace(other, proposals=image.proposals)
    how = replace(merging(cfg), views=2)
    (plain, same, mixed) = (
        [rows(d) for d in detect(model, shown, merging=m).detections.values()]
        for shown, m in (([image], None), ([image, image], how), ([other, image], how))
    )
    assert all(plain) and plain == same != mixed
