# SPDX-License-Identifier: Apache-2.0
"""AP equals pycocotools, also on files that pycocotools itself does not take."""

import json
import logging
from pathlib import Path

import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detectron_libra.errors import InputError
from detectron_libra.evaluation import evaluate_coco, to_coco_results
from detectron_libra.evaluation.coco import METRICS, RECALLS
from detectron_libra.structures import Detections

from .scenes import dataset, found, json_dataset, random_scene, record

REFERENCE = Path(__file__).resolve().parents[3] / "shared/data/metrics_ref"
CATS = [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}]


def annotation(image, category, bbox, **more):
    return {"image_id": image, "category_id": category, "bbox": list(bbox), **more}


@pytest.mark.skipif(not REFERENCE.is_dir(), reason="shared/data/metrics_ref is not at hand")
@pytest.mark.parametrize("extent", [0.0, 1.0])
def test_published_numbers(extent):
    truth = json.loads((REFERENCE / "gt.json").read_text())
    names, ids = zip(*((c["name"], c["id"]) for c in truth["categories"]), strict=True)
    data = dataset([record(i["id"]) for i in truth["images"]], names, ids, REFERENCE / "gt.json")
    rows: dict = {}
    for entry in json.loads((REFERENCE / "dets.json").read_text()):
        x, y, w, h = entry["bbox"]
        box = (x, y, x + w - extent, y + h - extent)
        rows.setdefault(entry["image_id"], []).append(
            (ids.index(entry["category_id"]) + 1, entry["score"], box)
        )
    detections = {i: found(*here, dtype=torch.float64) for i, here in rows.items()}
    result = evaluate_coco(data, detections, extent=extent)
    expected = json.loads((REFERENCE / "expected.json").read_text())
    for key in expected["order"]:
        place = expected["order"].index(key)
        assert result[key] == pytest.approx(expected["pycocotools"][place], rel=0, abs=1e-9)
        assert result[key] == pytest.approx(expected["published"][place], rel=0, abs=1e-6)
    assert tuple(expected["order"]) == METRICS + RECALLS
    found_classes = [value for value in result["per_class"].values() if value is not None]
    assert sum(found_classes) / len(found_classes) == pytest.approx(result["AP"])


def test_a_file_without_ids_areas_and_crowd_flags(tmp_path):
    data = json_dataset(
        tmp_path / "a.json",
        [{"id": "b"}, {"id": "a"}],
        [annotation("a", 7, (0, 0, 40, 40)), annotation("b", 3, (5, 5, 50, 50))],
        CATS,
    )
    detections = {"a": found((1, 0.9, (0, 0, 40, 40))), "b": found((2, 0.9, (5, 5, 55, 55)))}
    result = evaluate_coco(data, detections, extent=0.0)
    assert result["AP"] == pytest.approx(1) and result["per_class"] == {
        "cat": pytest.approx(1),
        "dog": pytest.approx(1),
    }
    assert result["APm"] == pytest.approx(1) and result["APs"] is None and result["APl"] is None


def test_annotations_that_share_an_id_are_all_counted(tmp_path):
    three = [annotation(1, 7, (40 * k, 0, 30, 30), id=0, area=900, iscrowd=0) for k in range(3)]
    data = json_dataset(tmp_path / "a.json", [{"id": 1}], three, CATS)
    one = {1: found((1, 0.9, (0, 0, 30, 30)))}
    # A third of the boxes is found: 34 of the 101 recall points lie at or below 1/3.
    assert evaluate_coco(data, one, extent=0.0)["AP50"] == pytest.approx(34 / 101)


def test_crowds_and_annotations_that_cannot_be_read(tmp_path, caplog):
    entries = [
        annotation(1, 7, (0, 0, 30, 30)),
        annotation(1, 7, (50, 50, 40, 40), iscrowd="1"),
        annotation(1, 99, (0, 0, 30, 30)),
        annotation(5, 7, (0, 0, 30, 30)),
        annotation(1, 7, (0, 0, -30, 30)),
        annotation(1, 7, (0, 0, float("nan"), 30)),
        annotation(1, 7, (0, 0, 30)),
        {"id": 3},
        None,
    ]
    data = json_dataset(tmp_path / "a.json", [{"id": 1}], entries, CATS)
    detections = {1: found((1, 0.9, (60, 60, 70, 70)), (1, 0.8, (0, 0, 30, 30)))}
    assert evaluate_coco(data, detections, extent=0.0)["AP"] == pytest.approx(1)
    assert "leaves out 7 of 9 annotations" in caplog.text


def test_a_zero_size_box_stays_an_object_that_nobody_finds(tmp_path):
    entries = [annotation(1, 7, (0, 0, 30, 30)), annotation(1, 7, (50, 50, 0, 20))]
    data = json_dataset(tmp_path / "a.json", [{"id": 1}], entries, CATS)
    one = {1: found((1, 0.9, (0, 0, 30, 30)))}
    assert evaluate_coco(data, one, extent=0.0)["AP50"] == pytest.approx(51 / 101)


def test_no_detection_is_ap_0_and_a_sentence(caplog):
    data = dataset([record(1, [(0, 0, 30, 30)], [1])])
    nothing = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    for detections in ({}, {1: nothing}):
        result = evaluate_coco(data, detections, extent=0.0)
        assert (result["AP"], result["AP50"], result["per_class"]) == (0, 0, {"cat": 0, "dog": None})
    assert "no detections at all" in caplog.text


@pytest.mark.parametrize("crowd", [True, None])
def test_nothing_to_find_is_none_and_a_sentence(crowd, caplog):
    boxes = [(0, 0, 30, 30)] if crowd else []
    data = dataset([record(1, boxes, [1] * len(boxes), [True] * len(boxes))])
    result = evaluate_coco(data, {1: found((1, 0.9, (0, 0, 30, 30)))}, extent=0.0)
    assert all(result[key] is None for key in METRICS + RECALLS)
    assert "no box to find" in caplog.text


def test_no_image_at_all():
    assert evaluate_coco(dataset([]), {}, extent=1.0)["AP"] is None


@pytest.mark.parametrize("extent", [0.0, 1.0])
def test_a_data_set_without_a_file_uses_its_records(extent):
    data = dataset([record(1, [(0, 0, 30, 30), (50, 50, 90, 90)], [1, 2])])
    detections = {1: found((1, 0.9, (0, 0, 30, 30)), (2, 0.9, (50, 50, 90, 90)))}
    assert evaluate_coco(data, detections, extent=extent)["AP"] == pytest.approx(1)


def test_a_file_that_broke_meanwhile_is_named(tmp_path):
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(InputError, match=r"a\.json: cannot be read"):
        evaluate_coco(dataset([record(1)], annotation_file=tmp_path / "a.json"), {}, extent=0.0)


def test_pycocotools_does_not_print(capsys, caplog):
    with caplog.at_level(logging.DEBUG):
        evaluate_coco(dataset([record(1, [(0, 0, 9, 9)], [1])]), {}, extent=0.0)
    assert capsys.readouterr().out == ""
    assert "Average Precision" in caplog.text


def test_two_classes_of_one_name_keep_a_row_each():
    data = dataset([record(1, [(0, 0, 9, 9)], [1])], ["cell", "cell"], [4, 9])
    assert set(evaluate_coco(data, {}, extent=0.0)["per_class"]) == {"cell (4)", "cell (9)"}


def test_equals_pycocotools_on_a_file_with_crowds(tmp_path):
    data, detections = random_scene(seed=4)
    boxes = [
        annotation(r.image_id, c, (b[0], b[1], b[2] - b[0], b[3] - b[1]), iscrowd=int(crowd))
        for r in data.records
        for b, c, crowd in zip(r.boxes.tolist(), r.classes.tolist(), r.crowd.tolist(), strict=True)
    ]
    for number, box in enumerate(boxes, start=1):
        box.update(id=number, area=box["bbox"][2] * box["bbox"][3])
    categories = [{"id": k, "name": name} for k, name in enumerate(data.class_names, start=1)]
    images = [{"id": r.image_id} for r in data.records]
    data = json_dataset(tmp_path / "a.json", images, boxes, categories)

    truth = COCO(str(tmp_path / "a.json"))
    theirs = COCOeval(truth, truth.loadRes(to_coco_results(data, detections, extent=0.0)), "bbox")
    theirs.evaluate()
    theirs.accumulate()
    theirs.summarize()
    ours = evaluate_coco(data, detections, extent=0.0)
    assert 0.1 < ours["AP"] < 0.9
    numbers = [-1 if ours[key] is None else ours[key] for key in METRICS + RECALLS]
    assert numbers == pytest.approx(theirs.stats.tolist(), rel=0, abs=1e-12)


def test_a_file_is_read_again_only_when_it_has_changed(tmp_path, monkeypatch):
    file = tmp_path / "a.json"
    one = [annotation(1, 7, (0, 0, 30, 30))]
    data = json_dataset(file, [{"id": 1}], one, CATS)
    detections = {1: found((1, 0.9, (0, 0, 30, 30)))}
    reads = []
    loads = json.loads
    monkeypatch.setattr(json, "loads", lambda text: reads.append(1) or loads(text))
    assert [evaluate_coco(data, detections, extent=0.0)["AP"] for _ in range(3)] == pytest.approx([1] * 3)
    assert len(reads) == 1
    json_dataset(file, [{"id": 1}], [*one, annotation(1, 7, (50, 50, 30, 30))], CATS)
    assert evaluate_coco(data, detections, extent=0.0)["AP"] == pytest.approx(51 / 101)
    assert len(reads) == 2
