# SPDX-License-Identifier: Apache-2.0
"""Detectron's rules of merging for each of its keys, from a file and from the command line alike.

The rules: a value has the type of the key's default; tuple and list stand for each other; text is read as the
Python literal it spells; an unknown, renamed or wrongly typed key is refused by name.
"""

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from detectron_libra.config import KEYS, load_config
from detectron_libra.config.fields import values_of
from detectron_libra.config.renamed import DEPRECATED, RENAMED
from detectron_libra.errors import UsageError

DETECTRON = json.loads((Path(__file__).parents[1] / "data/config_defaults.json").read_text())

#: Keys whose other values need a second key beside them, or mean something that is refused.
CHOSEN = {
    "MODEL.MASK_ON": "False",
    "MODEL.KEYPOINTS_ON": "False",
    "RETINANET.RETINANET_ON": "False",
    "MODEL.NUM_CLASSES": "81",
    "SOLVER.LR_POLICY": "cosine_decay",
    "GROUP_NORM.DIM_PER_GP": "-1",
    "GROUP_NORM.NUM_GROUPS": "16",
}
#: Lower ends of intervals whose upper end is below 1.
LOWER_ENDS = ("TRAIN.BG_THRESH_LO", "TRAIN.RPN_NEGATIVE_OVERLAP", "RETINANET.NEGATIVE_OVERLAP")
#: Every key of a float, but one whose range has no whole number.
FLOATS = [n for n, k in DETECTRON.items() if "float" in k["type"] and n != "RETINANET.PRIOR_PROB"]
#: Every key of text that may be any text.
TEXTS = [n for n, k in DETECTRON.items() if k["type"] == "str" and not KEYS[n].choices]
#: Text that spells no value of the type; a key of text refuses a list of a file only.
WRONG = {
    "bool": "1",
    "int": "0.5",
    "float": "word",
    "float64": "word",
    "str": "[a, b]",
    "tuple": "7",
    "list": "7",
    "ndarray": "word",
}


def another(name):
    """Text of a value that the key may have, other than the default where that is easy to say."""
    key = KEYS[name]
    if name in CHOSEN:
        return CHOSEN[name]
    if key.choices:
        return str(next(c for c in key.choices if c != key.default))
    if key.kind is bool:
        return str(not key.default)
    if key.kind is int:
        return str(key.default + 1)
    if key.kind in (float, np.float64):
        return repr(float(key.default) * 0.95 or 0.1)
    if key.kind is np.ndarray:
        return "[[[1, 2, 3.5]]]"
    if key.kind is str:
        return "some/path.pkl"
    text = {str: "'a'", float: "0.25", int: "32", None: "5"}[key.of]
    row = ", ".join([text] * (key.length or 2))
    return f"({row})" if key.kind is list else f"[{row}]"  # the other one of the two


def from_file(folder, name, text):
    *path, leaf = name.split(".")
    lines = [f"{'  ' * i}{part}:\n" for i, part in enumerate(path)]
    file = folder / "a.yaml"
    file.write_text("".join(lines) + f"{'  ' * len(path)}{leaf}: {text}\n")
    return load_config(file)


def refusals(load):
    with pytest.raises(UsageError) as e:
        load()
    assert e.value.exit_code == 2
    return str(e.value).splitlines()


@pytest.mark.parametrize("name", DETECTRON)
def test_a_value_of_the_keys_type_is_taken_from_file_and_command_line(tmp_path, name):
    """The rule: equal types merge, and a tuple where a list is due, or a list for a tuple, is converted."""
    text = another(name)
    for cfg in (from_file(tmp_path, name, text), load_config(None, [name, text])):
        value = values_of(cfg)[name]
        assert type(value) is KEYS[name].kind
        assert name in CHOSEN or not np.array_equal(value, KEYS[name].default)


@pytest.mark.parametrize("name", DETECTRON)
def test_a_value_of_another_type_is_refused_by_name_and_place(tmp_path, name):
    """The rule: any other type is a mismatch, which names the key; here in one line, with file and line."""
    kind = DETECTRON[name]["type"]
    text = WRONG[kind]
    line = len(name.split("."))
    (said,) = refusals(lambda: from_file(tmp_path, name, text))
    assert said.startswith(f"{tmp_path / 'a.yaml'}:{line}: {name}: ") and "must be" in said
    if kind == "str":
        return  # on the command line everything is text
    (said,) = refusals(lambda: load_config(None, [name, text]))
    assert said.startswith(f"command line, option 1: {name}: ") and "must be" in said


@pytest.mark.parametrize("name", FLOATS)
def test_a_whole_number_is_taken_where_a_float_is_due(tmp_path, name):
    """More than Detectron takes: its rule of equal types refuses ``BASE_LR: 1``."""
    text = "0" if name in LOWER_ENDS else "1"
    for cfg in (from_file(tmp_path, name, text), load_config(None, [name, text])):
        assert values_of(cfg)[name] == float(text) and isinstance(values_of(cfg)[name], float)


@pytest.mark.parametrize("name", TEXTS)
def test_a_blank_is_empty_text(tmp_path, name):
    """More than Detectron takes: it reads a blank as the text 'None'."""
    for cfg in (from_file(tmp_path, name, ""), load_config(None, [name, "None"])):
        assert values_of(cfg)[name] == ""


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("TRAIN.SCALES", '"(800,)"', (800,)),
        ("SOLVER.BASE_LR", "1e-4", 1e-4),
        ("BBOX_XFORM_CLIP", "4.135", 4.135),
        ("TRAIN.WEIGHTS", '"None"', ""),
        ("TRAIN.DATASETS", "\"('a', 'b')\"", ("a", "b")),
        ("TRAIN.USE_FLIPPED", '"False"', False),
        ("OUTPUT_DIR", "2017", "2017"),
        ("RPN.SIZES", "(32, 45.25)", (32, 45.25)),
    ],
)
def test_text_is_read_as_the_literal_it_spells(tmp_path, name, text, expected):
    """The rule: ast.literal_eval of every text, which stays text where it spells nothing."""
    assert values_of(from_file(tmp_path, name, text))[name] == expected
    assert values_of(load_config(None, [name, text.strip('"')]))[name] == expected


@pytest.mark.parametrize("name", sorted(DEPRECATED))
def test_a_deprecated_key_is_skipped_with_a_warning(tmp_path, caplog, name):
    """The rule: a deprecated key changes nothing, and is told; YAML 1.1 reads the bare ``ON`` of one as True."""
    with caplog.at_level(logging.WARNING):
        assert from_file(tmp_path, name, "1") == load_config(None, [name, "1"]) == load_config()
    assert caplog.text.count(f"{name} has no effect any more") == 2


@pytest.mark.parametrize("name", sorted(RENAMED))
def test_a_renamed_key_is_an_error_that_gives_the_new_name(tmp_path, name):
    """The rule: a renamed key stops the run; the message has the new name and how the value changes."""
    new, hint = RENAMED[name]
    (said,) = refusals(lambda: load_config(None, [name, "1"]))
    assert f"{name}: the key is called {new} now" in said and hint in said
    if new in KEYS:
        (said,) = refusals(lambda: from_file(tmp_path, name, "1"))
        assert f"a.yaml:2: {name}: the key is called {new} now" in said and hint in said
