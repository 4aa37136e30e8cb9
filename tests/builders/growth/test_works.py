# SPDX-License-Identifier: Apache-2.0
"""What is measured is what it is said to be: sizes reach the work, memory is counted, verdicts follow exponents."""

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import numpy as np
import pytest
import torch

from detectron_libra.builders.growth import boxes, data, images, page, run, sets
from detectron_libra.builders.growth.curve import OBJECTS, Axis, Curve, Point, Work, curve_of
from detectron_libra.builders.growth.detectors import DETECTORS, Scene, draw_batch, test_step, training_step
from detectron_libra.builders.growth.measure import measure, memory_of

test_step.__test__ = False  # a step of a test, and no test


def curve(power, name="work", exempt=""):
    points = (Point(size, float(size**power), size, 3) for size in (1, 10, 100, 1000))
    return Curve(name, tuple(points), exempt=exempt)


@pytest.mark.parametrize("name", run.AXES)
def test_every_axis_reaches_the_sizes_of_the_contract(name):
    least, most = {
        "image": (64**2, 1024**2),
        "batch": (1, 32),
        "boxes": (1, 10_000),
        "classes": (1, 4000),
        "data": (100, 1_000_000),
    }[name]
    axis = run.AXES[name]()
    assert {(work.sizes[0], work.sizes[-1]) for work in axis.works} == {(least, most)}
    assert len({work.name for work in axis.works}) == len(axis.works)
    assert all(list(work.sizes) == sorted(set(work.sizes)) for work in axis.works)
    exempt = [work.name for work in axis.works if work.exempt]
    assert len(exempt) == (2 if name == "image" else 0)


@pytest.mark.parametrize("keys", DETECTORS.values(), ids=DETECTORS)
def test_a_training_step_changes_weights_and_a_test_step_finds_boxes(keys):
    scene = Scene(side=64, images=2, boxes=5)
    values = training_step(keys, scene)()
    assert torch.isfinite(values["loss"]) and values["grad_norm"] > 0
    found = test_step(keys, scene)()
    assert len(found) == 2 and all(len(each) for each in found)


def test_a_batch_has_the_boxes_of_its_scene_inside_the_image():
    batch = draw_batch(Scene(side=96, images=3, boxes=40, classes=7))
    assert batch.images.shape == (3, 3, 96, 96) and batch.targets.boxes.shape == (3, 40, 4)
    assert batch.targets.valid.all() and batch.targets.classes.max() == 7
    assert (batch.targets.boxes >= 0).all() and (batch.targets.boxes <= 96).all()
    assert (batch.targets.boxes[..., 2:] > batch.targets.boxes[..., :2]).all()


def test_sets_have_the_size_asked_for_and_their_faults_are_noted_one_by_one():
    dataset = sets.index(sets.content_of(images=10, annotations=70, classes=5))
    assert len(dataset.records) == 10 and len(dataset.class_names) == 5
    assert sum(len(record.classes) for record in dataset.records) == 70 and not dataset.problems.kinds
    found = sets.detections_in(dataset, 200)
    assert sum(map(len, found.values())) == 200 and found.keys() == {r.image_id for r in dataset.records}
    assert all((np.diff(each.scores.numpy()) <= 0).all() for each in found.values())
    faulty = sets.index(sets.content_of(images=10, annotations=70, classes=5, outside=True))
    assert faulty.problems.dropped == 70


def test_detections_are_partly_right():
    dataset = sets.index(sets.content_of(images=20, annotations=140, classes=3))
    result = data.results_dict(dataset, sets.detections_in(dataset, 400), extent=0.0, threshold=0.5, iou=0.5)
    assert 0.02 < result["made_up"]["box"]["AP50"] < 0.9


def test_steps_in_the_middle_of_an_epoch_plan_nothing_anew(monkeypatch):
    work = data.later_steps(7000)
    monkeypatch.setattr(data.TrainPlan, "_shuffle", None)
    batches = work()
    assert len(batches) == data.LATER_STEPS and all(len(b) == data.IMAGES_PER_STEP for b in batches)


@pytest.mark.parametrize("prepare", [boxes.anchors_by_iou, boxes.anchors_by_atss])
def test_matching_has_the_anchors_of_the_image_and_all_the_ground_truth(prepare):
    found = prepare(50)()
    assert found.iou.shape == (1, 9 * (256 + 64 + 16 + 4 + 1)) and found.index.max() > 30


def test_nms_has_a_box_per_cell_and_the_attention_a_gradient():
    assert images.nms_of_area(64 * 64)().shape == (64,)
    assert images.attention_of_area(64 * 64)().shape == (1, images.CHANNELS, 8, 8)


def test_memory_of_objects_and_of_tensors():
    size = 10_000_000
    assert size <= memory_of(lambda: bytearray(size), OBJECTS) < 1.01 * size
    assert size <= memory_of(lambda: torch.zeros(size, dtype=torch.uint8), "tensors") < 1.01 * size


def test_a_work_is_measured_at_each_size_and_survives_json():
    told = []
    work = Work("sum", lambda size: lambda: sum(range(size)), (10, 1000), memory=OBJECTS, exempt="why")
    axis = Axis("axis", "units", (work, replace(work, name="again")))
    found, _ = measure(axis, tell=lambda name, point: told.append((name, point.size)))
    assert told == [("sum", 10), ("again", 10), ("sum", 1000), ("again", 1000)]
    assert [p.size for p in found.points] == [10, 1000] and all(p.runs >= 3 for p in found.points)
    assert all(p.extra_bytes > 0 for p in found.points)
    assert curve_of(found.as_json()) == found
    unknown, _ = measure(axis, memory_s=0.0, tell=lambda *_: None)
    assert all(p.extra_bytes is None for p in unknown.points) and unknown.memory_exponent is None


def test_what_grows_too_fast_is_named_unless_it_is_known_to():
    curves = {"boxes": [curve(1), curve(2, "pairs"), curve(2, "attention", "all with all")]}
    (line,) = run.faster_than_linear(curves)
    assert line == "boxes: pairs: exponent 1.99 of time, 1.00 of memory"
    assert "faster than linearly grow: pairs (boxes)" in page.summary(curves)
    assert "attention (all with all)" in page.summary(curves)
    assert "and all of them are" in page.summary({"boxes": curves["boxes"][::2]})


def test_the_page_has_every_curve_and_the_picture_is_a_file_of_its_own():
    curves = {"batch": [curve(1, "one step & more"), curve(2, "two")]}
    env = {"cpu": "a", "cores": 2, "load_average": 1, "torch": "2", "commit": "c", "date": "d"}
    content = run.as_json(curves, env)
    assert run.from_json(content) == curves
    text = page.markdown(content, curves, "growth")
    assert "| one step & more | 1 s, 1 B | 10 s, 10 B | 100 s, 100 B | 1e+03 s, 1 kB | 1.00 | 1.00 |" in text
    picture = page.plot(curves["batch"], "images")
    root = ElementTree.fromstring(picture)
    assert root.tag.endswith("svg") and "<style>" in picture and "--c1:" in picture
    assert {"one step & more", "two", "linear"} <= set(root.itertext())
    assert not re.findall(r"(?:href|src)=|url\(|@import", picture)
