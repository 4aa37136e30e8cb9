# SPDX-License-Identifier: Apache-2.0
"""Rules: the number of classes comes from the data or must fit it; a missing known set says where it is looked for."""

import json

import pytest

from detectron_libra.builders.data import (
    count_classes,
    load_dataset,
    locate,
    trains_on_empty,
    workers,
)
from detectron_libra.config import load_config
from detectron_libra.errors import InputError, UsageError
from tests.builders.small import config
from tests.data.coco_files import coco, write


def test_the_number_of_classes_is_the_datas_or_must_fit():
    assert count_classes(load_config(None, []), ("a", "b")) == 3
    assert count_classes(load_config(None, ["MODEL.NUM_CLASSES", "3"]), ("a", "b")) == 3
    with pytest.raises(UsageError, match="NUM_CLASSES: 81 .* 2 categories: set it to 3"):
        count_classes(load_config(None, ["MODEL.NUM_CLASSES", "81"]), ("a", "b"))


def test_a_known_set_that_is_not_there_says_how_to_bring_it(tmp_path, monkeypatch):
    monkeypatch.setenv("LIBRA_DATA_DIR", str(tmp_path))
    with pytest.raises(InputError, match=r"instances_train2017.json: .* LIBRA_DATA_DIR .* coco/"):
        locate(load_config(None, []), "coco_2017_train")
    file = tmp_path / "coco/annotations/instances_train2017.json"
    file.parent.mkdir(parents=True)
    file.write_text("{}")
    assert locate(load_config(None, []), "coco_2017_train") == (
        str(tmp_path / "coco/coco_train2017"),
        str(file),
    )


def test_a_declared_set_wins_over_a_known_one():
    declared = '{"coco_2017_train": {"IM_DIR": "here", "ANN_FN": "mine.json"}}'
    assert locate(load_config(None, ["DATASETS", declared]), "coco_2017_train") == ("here", "mine.json")


@pytest.mark.parametrize(
    ("kind", "changes", "kept"),
    [
        ("retinanet", {}, False),
        ("faster_rcnn", {}, False),
        ("faster_rcnn", {"TRAIN__KEEP_EMPTY": True}, True),
        ("fast_rcnn", {}, True),
        ("fast_rcnn", {"TRAIN__BG_THRESH_LO": 0.1}, False),
        ("fast_rcnn", {"MODEL__BOX_GEOMETRY": "continuous"}, False),
    ],
)
def test_images_without_boxes_are_trained_on_where_their_proposals_are_background(kind, changes, kept):
    """The rule: an image is kept with any box or proposal that overlaps >= FG_THRESH or in [BG_LO, BG_HI); a ground
    truth of its own overlaps 1, a stored proposal of an image without any 0.
    """
    assert trains_on_empty(config(kind, **changes)) is kept


def test_the_smallest_area_holds_for_training_sets_alone(tmp_path):
    """TRAIN.GT_MIN_AREA leaves what is measured as it is: COCO's evaluation sees every object."""
    images, annotations = write(tmp_path, coco(2))
    declared = json.dumps({"mine": {"IM_DIR": images, "ANN_FN": annotations}})
    cfg = load_config(None, ["DATASETS", declared, "TRAIN.GT_MIN_AREA", "195"])
    count = {t: [len(r.boxes) for r in load_dataset(cfg, "mine", training=t).records] for t in (True, False)}
    assert count == {True: [1, 1], False: [2, 2]}


def test_workers_are_detectrons_threads_up_to_the_cores(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    assert workers(load_config(None, [])) == 2
    assert workers(load_config(None, ["DATA_LOADER.NUM_THREADS", "1"])) == 1
    assert workers(load_config(None, ["DATA.WORKERS", "0"])) == 0
