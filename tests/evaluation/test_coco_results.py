# SPDX-License-Identifier: Apache-2.0
"""A COCO results file: its rows, its bytes, and that it is whole or not there."""

import json

import pytest
import torch

from detectron_libra.evaluation import to_coco_results, write_coco_results
from detectron_libra.structures import Detections

from .scenes import dataset, found, random_scene, record


def test_results_have_the_files_ids_and_sizes_in_the_geometry():
    data = dataset([record("z"), record(10), record(9)], category_ids=(7, 3))
    detections = {
        10: found((2, 0.5, (1, 2, 10, 20))),
        9: found((1, 0.25, (0, 0, 3, 4))),
        77: found((1, 1, (0, 0, 1, 1))),
    }
    assert to_coco_results(data, detections, extent=1.0) == [
        {"image_id": 9, "category_id": 7, "bbox": [0, 0, 4, 5], "score": 0.25},
        {"image_id": 10, "category_id": 3, "bbox": [1, 2, 10, 19], "score": 0.5},
    ]


def test_of_equal_scores_the_lower_class_comes_first():
    data = dataset([record(1)])
    box = (0, 0, 9, 9)
    rows = to_coco_results(
        data, {1: found((2, 0.5, box), (1, 0.5, box), (2, 0.75, box), (1, 0.5, (1, 1, 5, 5)))}, extent=0.0
    )
    assert [(row["category_id"], row["score"], row["bbox"][0]) for row in rows] == [
        (2, 0.75, 0),
        (1, 0.5, 0),
        (1, 0.5, 1),
        (2, 0.5, 0),
    ]


@pytest.mark.parametrize("ids", [range(30), [f"Bild-Ä{k}" for k in range(30)]])
def test_the_streamed_file_is_what_json_writes_at_once(tmp_path, ids):
    data, detections = random_scene(seed=3)
    data = dataset([record(i) for i in ids], data.class_names)
    detections = {i: detections[k] for k, i in enumerate(ids) if k % 3}
    file = write_coco_results(tmp_path / "new" / "a.json", data, detections, extent=1.0)
    rows = to_coco_results(data, detections, extent=1.0)
    assert len(rows) > 100
    text = json.dumps(rows, ensure_ascii=False, allow_nan=False) + "\n"
    assert file.read_bytes() == text.encode("utf-8")


@pytest.mark.parametrize("records", [[], [1]])
def test_nothing_found_is_an_empty_list(tmp_path, records):
    file = write_coco_results(tmp_path / "a.json", dataset([record(i) for i in records]), {}, extent=0.0)
    assert file.read_bytes() == b"[]\n"


def test_a_score_that_json_does_not_have_leaves_the_old_file(tmp_path):
    file = tmp_path / "a.json"
    file.write_text("old")
    bad = Detections(torch.zeros(1, 4), torch.tensor([float("nan")]), torch.ones(1, dtype=torch.int64))
    with pytest.raises(ValueError, match="JSON"):
        write_coco_results(file, dataset([record(1), record(2)]), {2: bad}, extent=0.0)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.json", "old")]
