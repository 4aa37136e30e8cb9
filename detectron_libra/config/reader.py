# SPDX-License-Identifier: Apache-2.0
"""YAML as plain data with the line of every key; nothing in a file can name a Python object."""

import os
from collections.abc import Hashable
from typing import Any

import yaml

from detectron_libra.errors import UsageError


class Mapping(dict):
    """A mapping of a file that knows where each key stands: ``where[key]`` is ``file:line``."""

    def __init__(self) -> None:
        super().__init__()
        self.where: dict[str, str] = {}


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with line numbers; a key that stands twice in a mapping is a fault."""

    def __init__(self, stream: Any, name: str) -> None:
        super().__init__(stream)
        self.file = name
        self.faults: list[str] = []

    def flatten_mapping(self, node: Any) -> None:
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(
                    None, None, "merge keys (<<) are not read; use _BASE_", key_node.start_mark
                )

    def read_mapping(self, node: Any) -> Mapping:
        self.flatten_mapping(node)
        mapping = Mapping()
        for key_node, value_node in node.value:
            key = self.construct_object(key_node, deep=True)
            where = f"{self.file}:{key_node.start_mark.line + 1}"
            if isinstance(key, bool):
                key = "ON" if key else "OFF"  # YAML 1.1 takes the bare words for truth values
            if not isinstance(key, Hashable) or isinstance(key, tuple):
                self.faults.append(f"{where}: a key must be a word")
                continue
            key = str(key)
            if key in mapping:
                self.faults.append(f"{where}: {key} was set before, at {mapping.where[key]}; remove one")
            mapping[key] = self.construct_object(value_node, deep=True)
            mapping.where[key] = where
        return mapping


_Loader.add_constructor("tag:yaml.org,2002:map", _Loader.read_mapping)


def parse(text: bytes | str, name: str) -> tuple[Mapping, list[str]]:
    """YAML text as nested ``Mapping`` and the keys that stand twice, as messages.

    Raises:
        UsageError: the text is no YAML, or is no mapping.
    """
    try:
        loader = _Loader(text, name)
        try:
            tree = loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as e:
        mark = e.problem_mark or e.context_mark
        line = f":{mark.line + 1}" if mark else ""
        problem = " ".join(str(e.problem or e.context).split())
        raise UsageError(f"{name}{line}: not plain YAML: {problem}") from None
    except (yaml.YAMLError, ValueError, OverflowError, AttributeError) as e:
        raise UsageError(f"{name}: not plain YAML: {' '.join(str(e).split())}") from None
    except (RecursionError, MemoryError):
        raise UsageError(f"{name}: not plain YAML: nested too deeply") from None
    if tree is None:
        tree = Mapping()
    if not isinstance(tree, Mapping):
        raise UsageError(
            f"{name}: the file holds a {type(tree).__name__}; it must hold keys and values (KEY: value)"
        )
    return tree, loader.faults


def read(path: str) -> tuple[Mapping, list[str]]:
    """``parse`` of a file.

    Raises:
        UsageError: the file cannot be read, is no YAML, or is no mapping.
    """
    try:
        with open(path, "rb") as f:
            text = f.read()
    except FileNotFoundError:
        near = "" if os.path.isabs(path) else f" (in {os.getcwd()})"
        raise UsageError(f"{path}: there is no such configuration file{near}") from None
    except (OSError, ValueError) as e:
        reason = getattr(e, "strerror", None) or e
        raise UsageError(f"{path}: the configuration file cannot be read: {reason}") from None
    return parse(text, path)
