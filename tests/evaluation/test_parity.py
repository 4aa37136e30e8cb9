# SPDX-License-Identifier: Apache-2.0
"""AP equals pycocotools' on the file, whoever computes it; hotcoco is believed only while it agrees."""

import contextlib
import importlib.util
import io
import logging
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detectron_libra.evaluation import evaluate_coco, fast, to_coco_results
from detectron_libra.evaluation.coco import METRICS, RECALLS
from detectron_libra.evaluation.coco_boxes import FoundBoxes, TrueBoxes
from detectron_libra.evaluation.pycoco import Accumulated

from .scenes import dataset, found, json_dataset, record

WITH_HOTCOCO = pytest.mark.skipif(not importlib.util.find_spec("hotcoco"), reason="hotcoco is not installed")


@pytest.fixture(params=["pycocotools", pytest.param("hotcoco", marks=WITH_HOTCOCO)])
def program(request, monkeypatch):
    """What computes; hotcoco after a sample of one image, so that its own numbers are the ones compared."""
    if request.param == "pycocotools":
        monkeypatch.setattr(fast, "installed", lambda: None)
    monkeypatch.setattr(fast, "SAMPLE", 1)
    return request.param


def random_set(file, seed):
    """Ground truth as a file, with crowds, empty images and classes, gaps in ids; detections with ties, or none."""
    rng = np.random.default_rng(seed)
    images = [{"id": int(i)} for i in rng.permutation(100)[: rng.integers(1, 7)]]
    categories = [{"id": int(i), "name": f"class {i}"} for i in rng.permutation(90)[: rng.integers(1, 5)]]
    spread = rng.choice([30, 100, 400])
    boxes, detections = [], {}
    for image in images:
        rows = []
        for _ in range(rng.integers(0, 8)):
            category = int(rng.integers(len(categories)))
            corner, side = rng.random(2) * spread, rng.random(2) * spread * rng.choice([0.1, 0.5, 1]) + 1
            box = [*corner.tolist(), *side.tolist()]
            boxes.append(
                {
                    "id": len(boxes) + 1,
                    "image_id": image["id"],
                    "category_id": categories[category]["id"],
                    "bbox": box,
                    "area": box[2] * box[3] * float(rng.choice([0.5, 1])),
                    "iscrowd": int(rng.random() < 0.15),
                }
            )
            for _ in range(rng.integers(0, 4)):
                moved = np.array([*corner, *(corner + side)]) + rng.normal(size=4) * side.min() * 0.1
                rows.append((category + 1, float(rng.integers(1, 6) / 5), tuple(moved.tolist())))
        for _ in range(rng.integers(0, 5)):
            corner = rng.random(2) * spread
            score = float(rng.choice([rng.random(), 0.5]))
            rows.append(
                (int(rng.integers(len(categories))) + 1, score, (*corner, *(corner + 1 + rng.random(2) * 40)))
            )
        detections[image["id"]] = found(*rows, dtype=torch.float64)
    if seed % 10 == 0:
        detections = {}
    return json_dataset(file, images, boxes, categories), detections


def by_pycocotools(file, results):
    """The 12 numbers of the file itself, -1 as None, in the order of METRICS and RECALLS."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(file))
        predicted = truth.loadRes(results) if results else COCO()
        if not results:
            predicted.dataset = {**truth.dataset, "annotations": []}
            predicted.createIndex()
        evaluation = COCOeval(truth, predicted, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [None if value == -1 else value for value in evaluation.stats]


def compare(tmp_path, seeds):
    defined = 0
    for seed in seeds:
        file = tmp_path / f"{seed}.json"
        data, detections = random_set(file, seed)
        ours = evaluate_coco(data, detections, extent=0.0)
        theirs = by_pycocotools(file, to_coco_results(data, detections, extent=0.0))
        for key, value in zip(METRICS + RECALLS, theirs, strict=True):
            assert ours[key] == (None if value is None else pytest.approx(value, rel=0, abs=1e-9)), (
                seed,
                key,
            )
        defined += bool(theirs[0])
    assert defined > len(seeds) / 2


def test_a_sample_of_random_sets_equals_pycocotools(tmp_path, program, caplog):
    compare(tmp_path, range(25))
    assert "hotcoco is not used" not in caplog.text


@pytest.mark.slow
def test_a_thousand_random_sets_equal_pycocotools(tmp_path, program, caplog):
    compare(tmp_path, range(1000))
    assert "hotcoco is not used" not in caplog.text


def perfect():
    data = dataset([record(1, [(0, 0, 30, 30)], [1])])
    return data, {1: found((1, 0.9, (0, 0, 30, 30)))}


def test_without_hotcoco_one_line_says_so(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "hotcoco", None)
    fast.installed.cache_clear()
    caplog.set_level(logging.INFO)
    for _ in range(3):
        assert evaluate_coco(*perfect(), extent=0.0)["AP"] == pytest.approx(1)
    fast.installed.cache_clear()
    lines = [r.message for r in caplog.records if "hotcoco" in r.message]
    assert len(lines) == 1 and "pycocotools" in lines[0]


class Columns:
    """hotcoco's COCO as far as it is needed to fail later."""

    @classmethod
    def from_arrays(cls, *_, **__):
        return cls()

    def load_res(self, rows):
        assert rows.dtype == np.float64 and rows.shape[1] == 7
        return self


class Wrong:
    """A COCOeval that is right about what the sample's precision is, and wrong about recall, or the other way round."""

    wrong = "precision"

    def __init__(self, *_):
        self.params = SimpleNamespace()

    def evaluate(self):
        pass

    def accumulate(self):
        right = {"precision": np.full((10, 101, 1, 4, 3), -1.0), "recall": np.full((10, 1, 4, 3), -1.0)}
        for area in (0, 1):  # the only box of ``perfect`` is small
            for values in right.values():
                values[..., area, :] = 1
        right[self.wrong] = right[self.wrong] - 1e-6
        self.eval = right


class WrongRecall(Wrong):
    wrong = "recall"


class Right(Wrong):
    def accumulate(self):
        super().accumulate()
        self.eval["precision"] = self.eval["precision"] + 1e-6


@pytest.mark.parametrize(
    ("evaluation", "reason"),
    [(Wrong, "does not agree"), (WrongRecall, "does not agree"), (None, "it fails (TypeError")],
)
def test_what_does_not_agree_or_fails_is_not_used_and_told(monkeypatch, caplog, evaluation, reason):
    module = SimpleNamespace(COCO=Columns, COCOeval=evaluation)
    monkeypatch.setattr(fast, "installed", lambda: module)
    assert evaluate_coco(*perfect(), extent=0.0)["AP"] == pytest.approx(1)
    (line,) = [r.message for r in caplog.records if "hotcoco" in r.message]
    assert reason in line and "pycocotools measures" in line


def test_the_fakes_fail_for_what_they_say_only(monkeypatch, caplog):
    """Right about both, the same fake is believed: what it says of the whole set is what comes out."""
    monkeypatch.setattr(fast, "installed", lambda: SimpleNamespace(COCO=Columns, COCOeval=Right))
    data, detections = perfect()
    evaluate_coco(dataset(data.records, ["cat"]), detections, extent=0.0)
    assert not [r for r in caplog.records if "hotcoco" in r.message]


def test_a_sample_comes_from_images_with_boxes_and_their_commonest_classes(monkeypatch):
    """Many images without any box, and classes without one, leave something to compare."""
    seen = []

    def measure(truth, found, images, classes):
        seen.append((truth, list(images), list(classes)))
        return Accumulated(np.zeros((1, 1, 1, 1, 1)), np.zeros((1, 1, 1, 1)))

    images = np.arange(500, 700).repeat(40)
    classes = np.tile(np.arange(100, 140), 200)
    common = images % 100 < 50
    classes[common] = np.minimum(classes[common], 120)
    truth = TrueBoxes.of(images, np.ones((8000, 4)), classes)
    nothing = FoundBoxes.of([], [], [], [])
    monkeypatch.setattr(fast, "installed", object)
    monkeypatch.setattr(fast, "by_pycocotools", measure)
    monkeypatch.setattr(fast, "by_hotcoco", lambda module, *rest: measure(*rest))
    fast.accumulate(truth, nothing, range(1000), range(150))
    (sample, images, classes), second, (whole, every, all_classes) = seen
    assert (images, classes) == second[1:]
    assert 50 <= len(images) < 100 and set(images) <= set(range(500, 700))
    assert len(classes) == fast.SAMPLE_CLASSES and 120 in classes and set(classes) <= set(range(100, 140))
    assert set(sample.images) == set(images) and set(sample.classes) == set(classes)
    assert len(whole.images) == 8000 and len(every) == 1000 and len(all_classes) == 150
