# SPDX-License-Identifier: Apache-2.0
"""detections.pkl of many classes: what is in it, and that pairs of image and class without a detection cost nothing."""

import pickle

import numpy as np
import pytest

from detectron_libra.builders.growth.sets import content_of, detections_in, index
from detectron_libra.evaluation import detections_pickle


def stored(classes, detections=60):
    dataset = index(content_of(images=9, annotations=40, classes=classes))
    found = detections_in(dataset, detections)
    return dataset, found, detections_pickle(dataset, found, config_text="")


@pytest.mark.parametrize("classes", [1, 7])
def test_every_box_is_with_its_class_and_image_best_first(classes):
    dataset, found, file = stored(classes)
    content = pickle.loads(file)
    for number, record in enumerate(dataset.records):
        each = found[record.image_id]
        assert content["all_boxes"][0][number] == []
        for label in range(1, classes + 1):
            mine = each.classes == label
            rows = content["all_boxes"][label][number]
            expected = np.concatenate([each.boxes[mine], each.scores[mine][:, None]], axis=1)
            assert rows.dtype == np.float32 and rows.shape == (int(mine.sum()), 5)
            np.testing.assert_array_equal(rows, expected)


def test_other_keys_have_a_list_per_class_of_a_list_per_image():
    _, _, file = stored(4)
    content = pickle.loads(file)
    for key in ("all_segms", "all_keyps"):
        assert content[key] == [[[]] * 9] * 5
        assert len({id(row) for row in content[key]}) == 5
    assert len({id(row) for row in content["all_boxes"]}) == 5


def test_a_class_more_costs_a_few_bytes_per_image_and_no_array():
    sizes = {classes: len(stored(classes, detections=0)[2]) for classes in (100, 1100)}
    per_pair = (sizes[1100] - sizes[100]) / (1000 * 9)
    assert per_pair < 10
    content = pickle.loads(stored(100)[2])
    arrays = {id(rows) for row in content["all_boxes"][1:] for rows in row}
    assert len(arrays) <= 60 + 1
