# SPDX-License-Identifier: Apache-2.0
"""How a configuration key is declared: a dataclass field that carries its documentation and its limits."""

import copy
from dataclasses import Field, dataclass, field, is_dataclass
from dataclasses import fields as all_fields
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Key:
    """What is known about one key; the documentation, the checks and the messages are made from it."""

    default: Any
    doc: str
    unit: str = ""
    min: float | None = None
    max: float | None = None
    #: A bound that the value itself may not reach.
    above: float | None = None
    choices: tuple = ()
    #: Type of the elements of a tuple or list; None where any element is taken.
    of: type | None = None
    #: Number of elements that a tuple, list or array that is not empty must have.
    length: int | None = None
    #: Accepted so that Detectron's files parse, without effect here.
    unused: bool = False
    #: How the default is written in the documentation where it depends on the machine.
    shown: str = ""

    @property
    def kind(self) -> type:
        """Type that a value of the key has: that of its default."""
        return type(self.default)


def key(default: Any, doc: str, **limits: Any) -> Any:
    """A field of a section; ``limits`` are the further fields of ``Key``."""
    metadata = {"key": Key(default, doc, **limits)}
    if isinstance(default, (list, dict, np.ndarray)):
        return field(default_factory=lambda: copy.deepcopy(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def section(cls: type) -> Any:
    """A field that holds a section of keys, all at their defaults."""
    return field(default_factory=cls)


def fields(node: Any) -> list[Field]:
    """The fields of a section, or of a section object, that are keys or sections."""
    return [f for f in all_fields(node) if is_dataclass(f.type) or "key" in f.metadata]


def flatten(cls: type, prefix: str = "") -> dict[str, Key]:
    """Every key below a section: dotted name -> ``Key``, in the order of declaration."""
    keys: dict[str, Key] = {}
    for f in fields(cls):
        if is_dataclass(f.type):
            keys.update(flatten(f.type, f"{prefix}{f.name}."))  # type: ignore[arg-type]
        else:
            keys[prefix + f.name] = f.metadata["key"]
    return keys


def sections(cls: type, prefix: str = "") -> dict[str, type]:
    """Every section below ``cls``: dotted name -> its dataclass."""
    found: dict[str, type] = {}
    for f in fields(cls):
        if is_dataclass(f.type):
            found[prefix + f.name] = f.type  # type: ignore[assignment]
            found.update(sections(f.type, f"{prefix}{f.name}."))  # type: ignore[arg-type]
    return found


def values_of(node: Any, prefix: str = "") -> dict[str, Any]:
    """Every value below a section object: dotted name -> value."""
    values: dict[str, Any] = {}
    for f in fields(node):
        value = getattr(node, f.name)
        if is_dataclass(value):
            values.update(values_of(value, f"{prefix}{f.name}."))
        else:
            values[prefix + f.name] = value
    return values


def construct(cls: type, values: dict[str, Any], prefix: str = "") -> Any:
    """The inverse of ``values_of``: a section object from dotted names and values."""
    arguments = {}
    for f in fields(cls):
        if is_dataclass(f.type):
            arguments[f.name] = construct(f.type, values, f"{prefix}{f.name}.")  # type: ignore[arg-type]
        else:
            arguments[f.name] = values[prefix + f.name]
    return cls(**arguments)
