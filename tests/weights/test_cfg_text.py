# SPDX-License-Identifier: Apache-2.0
"""The cfg of Detectron's files is read as plain values, whichever Python wrote it, and nothing in it can run."""

import sys
import types

import numpy as np
import pytest
import yaml

from detectron_libra.errors import InputError
from detectron_libra.weights.cfg_text import lookup, read_cfg, write_cfg, write_yaml

ATTR_DICT = "!!python/object/new:{module}.AttrDict"
#: As PyYAML writes Detectron's configuration, shortened.
FILE = """\
{attr_dict}
dictitems:
  BBOX_XFORM_CLIP: !!python/object/apply:{core}.multiarray.scalar
  - &id001 !!python/object/apply:numpy.dtype
    args: [f8, 0, 1]
    state: !!python/tuple [3, <, null, null, null, -1, -1, 0]
  - !!binary |
    qeISGmmKEEA=
  EMPTY: {empty}
    __immutable__: true
  MODEL: {attr_dict}
    dictitems:
      BBOX_REG_WEIGHTS: !!python/tuple [10.0, 10.0, 5.0, 5.0]
      MASK_ON: false
      NUM_CLASSES: 81
      TYPE: {text} generalized_rcnn
    state: {{__immutable__: true}}
  PIXEL_MEANS: !!python/object/apply:{core}.multiarray._reconstruct
    args:
    - !!python/name:numpy.ndarray ''
    - !!python/tuple [0]
    - {b}
    state: !!python/tuple
    - 1
    - !!python/tuple [1, 1, 3]
    - *id001
    - false
    - !!binary |
      {means}
  SOLVER: {attr_dict}
    dictitems:
      BASE_LR: 0.01
      STEPS: [0, 60000, 80000]
      WEIGHTS: null
    state: {{__immutable__: true}}
state: {{__immutable__: true}}
"""
MEANS = "0LNZ9bm+WUB/arx0k/xcQK+UZYhjsV5A"
NEW = {
    "module": "detectron.utils.collections",
    "core": "numpy.core",
    "b": "!!binary |\n      Yg==",
    "text": "",
}
OLD = {"module": "utils.collections", "core": "numpy.core", "b": "b", "text": "!!python/unicode"}
NUMPY_2 = NEW | {"core": "numpy._core"}


def text_of(form):
    form = dict(form)
    module = form.pop("module")
    return FILE.format(
        attr_dict=ATTR_DICT.format(module=module),
        empty=f"!!python/object:{module}.AttrDict",
        means=MEANS,
        **form,
    )


@pytest.mark.parametrize("form", [NEW, OLD, NUMPY_2], ids=["new", "old", "numpy 2"])
def test_the_tags_of_detectron_become_plain_values(form):
    cfg = read_cfg(text_of(form), "model.pkl")
    assert cfg["MODEL"] == {
        "BBOX_REG_WEIGHTS": (10.0, 10.0, 5.0, 5.0),
        "MASK_ON": False,
        "NUM_CLASSES": 81,
        "TYPE": "generalized_rcnn",
    }
    assert cfg["PIXEL_MEANS"] == [[[102.9801, 115.9465, 122.7717]]]
    assert cfg["BBOX_XFORM_CLIP"] == np.log(1000 / 16) and type(cfg["BBOX_XFORM_CLIP"]) is float
    assert cfg["SOLVER"] == {"BASE_LR": 0.01, "STEPS": [0, 60000, 80000], "WEIGHTS": None}
    assert cfg["EMPTY"] == {}


def test_plain_yaml_is_read_too_and_keys_are_looked_up():
    cfg = read_cfg("MODEL:\n  TYPE: retinanet\nA: [1, 2]\n", "f")
    assert cfg == {"MODEL": {"TYPE": "retinanet"}, "A": [1, 2]}
    assert lookup(cfg, "MODEL.TYPE") == "retinanet"
    assert lookup(cfg, "MODEL.NONE") is None and lookup(cfg, "A.B") is None


class AttrDict(dict):
    """As Detectron's: an attribute for every key."""

    def __init__(self, *args):
        super().__init__(*args)
        self.__dict__["__immutable__"] = False

    def __getattr__(self, name):
        if name in self.__dict__:
            return self.__dict__[name]
        if name in self:
            return self[name]
        raise AttributeError(name)


def test_what_is_written_is_what_detectrons_own_reader_needs(monkeypatch):
    """yaml.load as Detectron calls it gives nested AttrDicts with attributes and their state."""
    module = types.ModuleType("detectron.utils.collections")
    module.AttrDict = AttrDict
    for name in ("detectron", "detectron.utils"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "detectron.utils.collections", module)
    tree = read_cfg(text_of(NEW), "f") | {"LIST": [(1, 2), "ü", 1e-5]}
    loaded = yaml.unsafe_load(write_cfg(tree))
    assert isinstance(loaded, AttrDict) and isinstance(loaded.MODEL, AttrDict)
    assert loaded.MODEL.BBOX_REG_WEIGHTS == (10.0, 10.0, 5.0, 5.0) and loaded.__immutable__ is False
    assert loaded == tree
    assert type(loaded.BBOX_XFORM_CLIP) is np.float64


def test_written_forms_read_back():
    tree = {"A": {"B": (1, 2.5), "C": [None, True, "x: y"], "D": {}}, "E": 1e-14}
    assert read_cfg(write_cfg(tree), "f") == tree
    assert read_cfg(write_yaml(tree), "f") == {
        "A": {"B": [1, 2.5], "C": [None, True, "x: y"], "D": {}},
        "E": 1e-14,
    }
    assert "!!" not in write_yaml(tree)


@pytest.mark.parametrize(
    "text",
    [
        "A: !!python/object/apply:os.system [touch {marker}]",
        "A: !!python/object/new:os.system [touch {marker}]",
        'A: !!python/object/apply:builtins.eval [\'open("{marker}", "w")\']',
        "A: !!python/object/apply:numpy.core.multiarray.fromfile [x]",
        "A: !!python/object:detectron.utils.collections.Other {{}}",
        "A: !!python/name:os.system ''",
        "A: !!python/name:numpy.ndarray ''",
        "A: !!python/module:os ''",
        "A: !!python/object/apply:numpy.dtype [f8, 0, 1]",
        "A: !!python/object/apply:numpy.dtype {{args: [O8], state: !!python/tuple [3]}}",
        "A: !!python/object/new:detectron.utils.collections.AttrDict {{dictitems: [1]}}",
        "? !!python/tuple [1]\n: 2",
        "<<: {{A: 1}}",
        "A: &x [*x]",
        "A: [1",
        "A: !!int x",
        "- 1",
        "",
        "just words",
        "A: " + "[" * 3000,
        "A: " + "9" * 5000,
        "A: 2001-99-99",
        "A: " + "x" * 300_000,
    ],
)
def test_anything_else_is_an_error_of_one_line_and_runs_nothing(tmp_path, text):
    marker = tmp_path / "ran"
    with pytest.raises(InputError) as error:
        read_cfg(text.format(marker=marker), "model.pkl")
    assert str(error.value).startswith("model.pkl: cfg: ") and "\n" not in str(error.value)
    assert len(str(error.value)) < 300 and not marker.exists()


def test_aliases_cannot_grow_without_bound():
    """Nine mappings of nine aliases each would be 9^9 values, were they copied."""
    lines = ["A0: &a0 [1, 2, 3, 4, 5, 6, 7, 8, 9]"]
    lines += [f"A{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)]
    with pytest.raises(InputError, match="unfolds"):
        read_cfg("\n".join(lines), "f")
