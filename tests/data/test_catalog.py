# SPDX-License-Identifier: Apache-2.0
"""Names of data sets: declared ones first, Detectron's with Detectron's layout, unknown ones with a hint."""

import pytest

from detectron_libra.data.catalog import find
from detectron_libra.errors import UsageError

DECLARED = {"cells_train": {"IM_DIR": "images", "ANN_FN": "a/train.json"}, "half": {"IM_DIR": "x"}}


def test_declared_sets_come_first():
    assert find("cells_train", DECLARED) == ("images", "a/train.json")
    mine = {"coco_2014_train": {"IM_DIR": "here", "ANN_FN": "there.json"}}
    assert find("coco_2014_train", mine) == ("here", "there.json")


def test_detectrons_names_lie_below_the_data_root(monkeypatch, tmp_path):
    monkeypatch.setenv("LIBRA_DATA_DIR", str(tmp_path))
    images, annotations = find("coco_2014_minival", {})
    assert images == f"{tmp_path}/coco/coco_val2014"
    assert annotations == f"{tmp_path}/coco/annotations/instances_minival2014.json"
    monkeypatch.delenv("LIBRA_DATA_DIR")
    monkeypatch.chdir(tmp_path)
    assert find("coco_2017_val", {})[0] == "data/coco/coco_val2017"
    (tmp_path / "detectron/datasets/data").mkdir(parents=True)
    assert find("coco_2017_val", {})[0] == "detectron/datasets/data/coco/coco_val2017"


def test_unknown_names_get_the_nearest():
    with pytest.raises(UsageError, match="'cells_trian'.*cells_train"):
        find("cells_trian", DECLARED)


def test_a_declaration_without_a_path_names_its_key():
    with pytest.raises(UsageError, match=r"DATASETS\.half\.ANN_FN"):
        find("half", DECLARED)
