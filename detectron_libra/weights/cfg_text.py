# SPDX-License-Identifier: Apache-2.0
"""The configuration inside a Detectron file: YAML with Python's tags, read as plain values and written again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import yaml

from detectron_libra.errors import InputError
from detectron_libra.weights.pickled import Budget, Malformed, Name, Unfinished, call, find, finish

PYTHON = "tag:yaml.org,2002:python/"
LONGEST_CFG = 2**18  # characters; Detectron's own has ten thousand
NUMPY_KEY = "BBOX_XFORM_CLIP"  # Detectron's is NumPy's float64, and its reader compares types
ATTR_DICTS = ("detectron.utils.collections.AttrDict", "utils.collections.AttrDict")  # since 2018, and before


def read_cfg(text: str, source: str) -> dict[str, Any]:
    """The configuration as nested dictionaries.

    Args:
        text: plain YAML, or the form that PyYAML gives to Detectron's configuration.
        source: the file that it is from, for messages.

    Returns:
        dict, list, tuple, str, int, float, bool, None and bytes; NumPy arrays come as nested lists and NumPy scalars
        as numbers.

    Raises:
        InputError: no YAML, no mapping, or a tag that Detectron's configuration does not have.
    """
    if len(text) > LONGEST_CFG:
        raise InputError(f"{source}: cfg: {len(text)} characters, which no configuration has")
    try:
        loader = _Loader(text)
        try:
            tree = _plain(loader.get_single_data(), loader.budget)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as e:
        raise InputError(f"{source}: cfg: {' '.join(str(e.problem or e.context).split())[:200]}") from None
    except (yaml.YAMLError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as e:
        raise InputError(f"{source}: cfg: damaged ({' '.join(str(e).split())[:200]})") from None
    except (RecursionError, MemoryError):
        raise InputError(f"{source}: cfg: nested too deeply") from None
    if not isinstance(tree, dict):
        raise InputError(f"{source}: cfg: holds no keys and values")
    return tree


def write_cfg(tree: Mapping[str, Any]) -> str:
    """The text that Detectron's ``load_cfg`` reads as nested AttrDicts; tuples stay tuples.

    Args:
        tree: nested dictionaries of plain values.
    """
    clip = tree.get(NUMPY_KEY)
    if isinstance(clip, float):
        tree = {**tree, NUMPY_KEY: np.float64(clip)}
    return yaml.dump(_AttrDict(tree), Dumper=_Dumper, default_flow_style=None, allow_unicode=False, width=100)


def write_yaml(tree: Mapping[str, Any]) -> str:
    """The same as plain YAML, tuples as lists."""
    return yaml.safe_dump(
        _listed(tree), sort_keys=False, default_flow_style=None, allow_unicode=True, width=100
    )


def lookup(tree: Mapping[str, Any], key: str) -> Any:
    """The value of a key such as MODEL.BBOX_REG_WEIGHTS; None where there is none."""
    value: Any = tree
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _plain(value: object, budget: Budget) -> object:
    """A value without NumPy's types; what stands in several places through an alias counts in each."""
    budget.spend(1)
    if isinstance(value, Mapping):
        return {key: _plain(part, budget) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_plain(part, budget) for part in value)
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Name | Unfinished | np.dtype):
        raise Malformed("a function or an unfinished array stands where a value should")
    return value


def _listed(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _listed(part) for key, part in value.items()}
    return [_listed(part) for part in value] if isinstance(value, list | tuple) else value


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader and Detectron's tags, each with a constructor that builds plain values."""

    def __init__(self, text: str):
        super().__init__(text)
        self.budget = Budget(len(text))

    def flatten_mapping(self, node: Any) -> None:
        # Keys that are collections take unbounded time to hash, merged mappings unbounded memory.
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(None, None, "a key that is no word", key.start_mark)

    def read_attr_dict(self, node: Any) -> dict:
        parts = self.construct_mapping(node, deep=True)
        items = parts.get("dictitems", {})
        if not isinstance(items, dict):
            raise Malformed("an AttrDict without its items")
        return items

    def read_tuple(self, node: Any) -> tuple:
        return tuple(self.construct_sequence(node, deep=True))

    def read_name(self, suffix: str, node: Any) -> Name:
        module, _, name = suffix.rpartition(".")
        return find(module, name)

    def read_call(self, suffix: str, node: Any) -> object:
        function = self.read_name(suffix, node)
        if isinstance(node, yaml.SequenceNode):
            return call(function, self.construct_sequence(node, deep=True), self.budget)
        parts = self.construct_mapping(node, deep=True)
        result = call(function, parts.get("args", []), self.budget)
        return finish(result, parts["state"], self.budget) if "state" in parts else result


class _Dumper(yaml.SafeDumper):
    """PyYAML's safe dumper and the two tags that Detectron's own reader needs."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def write_attr_dict(self, data: _AttrDict) -> yaml.Node:
        items = {k: _AttrDict(v) if isinstance(v, Mapping) else v for k, v in data.items()}
        parts = {"dictitems": items, "state": {"__immutable__": False}}
        return self.represent_mapping(f"{PYTHON}object/new:{ATTR_DICTS[0]}", parts)

    def write_double(self, data: np.float64) -> yaml.Node:
        parts = [_DoubleType(), np.asarray(data, "<f8").tobytes()]
        return self.represent_sequence(f"{PYTHON}object/apply:numpy.core.multiarray.scalar", parts)

    def write_double_type(self, data: _DoubleType) -> yaml.Node:
        parts = {"args": ["f8", False, True], "state": (3, "<", None, None, None, -1, -1, 0)}
        return self.represent_mapping(f"{PYTHON}object/apply:numpy.dtype", parts)

    def write_tuple(self, data: tuple) -> yaml.Node:
        return self.represent_sequence(f"{PYTHON}tuple", data)


class _AttrDict(dict):
    """Detectron's dictionary with attributes, on its way into a text."""


class _DoubleType:
    """NumPy's dtype of float64, on its way into a text."""


for _name in ATTR_DICTS:
    # An empty one is written as `object`, with its state alone.
    for _form in ("object/new", "object"):
        _Loader.add_constructor(f"{PYTHON}{_form}:{_name}", _Loader.read_attr_dict)
for _scalar, _read in (("str", "str"), ("unicode", "str"), ("long", "int")):  # as Python 2 marks them
    _Loader.add_constructor(f"{PYTHON}{_scalar}", getattr(yaml.SafeLoader, f"construct_yaml_{_read}"))
_Loader.add_constructor(f"{PYTHON}tuple", _Loader.read_tuple)
_Loader.add_multi_constructor(f"{PYTHON}name:", _Loader.read_name)
_Loader.add_multi_constructor(f"{PYTHON}object/apply:", _Loader.read_call)
_Dumper.add_representer(_AttrDict, _Dumper.write_attr_dict)
_Dumper.add_representer(tuple, _Dumper.write_tuple)
_Dumper.add_representer(np.float64, _Dumper.write_double)
_Dumper.add_representer(_DoubleType, _Dumper.write_double_type)
