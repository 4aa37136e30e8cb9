# SPDX-License-Identifier: Apache-2.0
"""The layouts that people's scripts read: results.json, copypaste lines, detections.pkl; and the table."""

import json
import logging
import pickle

import numpy as np
import pytest

from detectron_libra.errors import RunError
from detectron_libra.evaluation import (
    detections_pickle,
    log_copypaste,
    results_dict,
    summary_table,
    write_detections,
    write_json,
)

from .scenes import dataset, found, record

RATES = {"precision", "recall", "f1"}


@pytest.fixture
def scene():
    data = dataset([record(12, [(0, 0, 30, 30)], [1]), record(5, [(0, 0, 40, 40)], [1])])
    return data, {5: found((1, 0.75, (0, 0, 40, 40)), (2, 0.5, (1, 2, 3, 4)), (1, 0.875, (50, 50, 60, 60)))}


@pytest.fixture
def results(scene):
    return results_dict(*scene, extent=1.0, threshold=0.5, iou=0.5)


def test_layout_of_results_json(results):
    assert set(results) == {"scene"}
    values = results["scene"]
    assert set(values) == {"box", "concept", "boxes_at_threshold"}
    recalls = {"AR1", "AR10", "AR100", "ARs", "ARm", "ARl"}
    assert set(values["box"]) == {"AP", "AP50", "AP75", "APs", "APm", "APl", "per_class"} | recalls
    shared = RATES | {"macro", "threshold", "best_threshold", "best_f1", "per_class"}
    assert set(values["concept"]) == shared | {"mAP"}
    assert set(values["boxes_at_threshold"]) == shared | {"iou"}
    assert set(values["concept"]["macro"]) == RATES
    for part in values.values():
        assert set(part["per_class"]) == {"cat", "dog"}


def test_json_on_disk_has_null_for_what_cannot_be_computed(tmp_path, results):
    file = write_json(tmp_path / "new" / "results.json", results)
    read = json.loads(file.read_text(encoding="utf-8"))
    assert read == results
    assert read["scene"]["box"]["per_class"]["dog"] is None
    assert [f.name for f in file.parent.iterdir()] == ["results.json"]


def test_json_refuses_nan(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"AP": float("nan")})


def test_a_file_that_cannot_be_written_is_named_with_its_size(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"results\.json: cannot write 3 bytes: .*OUTPUT_DIR"):
        write_json(tmp_path / "file" / "results.json", {})


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    file = write_json(tmp_path / "a.json", [1])

    def full_disk(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(RunError, match="No space left"):
        write_json(file, [2])
    assert json.loads(file.read_text()) == [1]
    assert list(tmp_path.iterdir()) == [file]


def test_copypaste_lines(results, caplog):
    results["scene"]["box"].update({"AP": 0.35714, "APl": None})
    with caplog.at_level(logging.INFO):
        log_copypaste(results)
    lines = [r.getMessage() for r in caplog.records if r.getMessage().startswith("copypaste")]
    assert lines[:3] == [
        "copypaste: Dataset: scene",
        "copypaste: Task: box",
        "copypaste: AP,AP50,AP75,APs,APm,APl",
    ]
    assert lines[3].startswith("copypaste: 0.3571,") and lines[3].endswith(",-1.0000")


def test_pickle_is_detectrons(tmp_path, scene):
    file = write_detections(tmp_path / "detections.pkl", *scene, config_text="MODEL: {}\n")
    content = pickle.loads(file.read_bytes())
    assert set(content) == {"all_boxes", "all_segms", "all_keyps", "cfg"} and content["cfg"] == "MODEL: {}\n"
    boxes = content["all_boxes"]
    assert boxes[0] == [[], []] and content["all_segms"] == content["all_keyps"] == [[[], []]] * 3
    # Images in ascending order of id: 5, then 12, which has none; best first within a class.
    assert boxes[1][0].dtype == np.float32
    np.testing.assert_array_equal(boxes[1][0], [[50, 50, 60, 60, 0.875], [0, 0, 40, 40, 0.75]])
    np.testing.assert_array_equal(boxes[2][0], [[1, 2, 3, 4, 0.5]])
    assert boxes[1][1].shape == boxes[2][1].shape == (0, 5)


def test_pickle_can_be_read_by_old_python_and_numpy(scene):
    content = detections_pickle(*scene, config_text="")
    assert content.startswith(b"\x80\x02")
    assert b"numpy.core.multiarray" in content and b"numpy._core" not in content


def test_table_names_every_class_and_says_what_is_unknown(results):
    table = summary_table(results)
    lines = table.splitlines()
    assert lines[0].startswith("scene: AP ") and lines[1].startswith("average recall: AR1 ")
    cells = {line.split()[0]: line.split()[1:] for line in lines if line.split()[0] in ("all", "cat", "dog")}
    # images: one cat of two found; one claim of a dog is wrong. boxes: of two cats one found, one wrong.
    assert cells["all"][1:] == ["50.0", "50.0", "50.0", "33.3", "50.0", "40.0"]
    assert cells["cat"][1:] == ["100.0", "50.0", "66.7", "50.0", "50.0", "50.0"]
    assert cells["dog"] == ["-", "0.0", "-", "-", "0.0", "-", "-"]
    assert max(map(len, lines)) <= 110 and table.isascii()


def test_table_of_an_empty_data_set():
    assert "all" in summary_table(results_dict(dataset([]), {}, extent=0.0, threshold=0.5, iou=0.5))
