# SPDX-License-Identifier: Apache-2.0
"""The few things that a file of plain data may name, built here from checked parts; none of them can be called by it.

NumPy's own functions are never handed to a file: a state with a wrong shape or with strides of its own would reach
memory that is not the array's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

#: Codes of the numbers that are read; everything else (objects, texts, records, dates) is no number.
NUMBER = re.compile(r"b1|i[1248]|u[1248]|f[248]|c8|c16")
BYTE_ORDERS = ("<", ">", "=", "|")
LATIN_1 = ("latin1", "latin-1", "latin_1", "iso-8859-1")
MAX_DIMENSIONS = 32
MAX_BITS = 62  # of a length
CORES = ("numpy.core", "numpy._core")  # before and since NumPy 2
BUILTINS = ("__builtin__", "builtins")  # Python 2 and 3
FACTORIES = ("bool", "dict", "float", "int", "list", "str")  # what a defaultdict may be made of


class Malformed(ValueError):
    """The file is not what it has to be; the message is half a line."""


class Budget:
    """What a file may unfold to: each of its bytes once as a text and once in an array."""

    def __init__(self, size: int):
        self.left = 2 * size

    def spend(self, amount: int) -> None:
        """Raises Malformed where the file has asked for more than it holds."""
        self.left -= amount
        if self.left < 0:
            raise Malformed("it unfolds to more than it holds")


@dataclass(frozen=True)
class Name:
    """A global that the file names; it stands for nothing but its text."""

    text: str


@dataclass(frozen=True)
class LongText:
    """A text too long to be a name: UTF-8 that is decoded only where it turns out to be the bytes of an array."""

    view: memoryview

    def __len__(self) -> int:
        return len(self.view)


@dataclass(frozen=True)
class LongBytes:
    """Bytes of an array that stay in the file until it is built; ``text``: stored as UTF-8 of Latin-1."""

    view: memoryview
    text: bool = False

    def __len__(self) -> int:
        return len(self.view)

    def read(self) -> bytes | memoryview:
        """The bytes."""
        return str(self.view, "utf-8").encode("latin-1") if self.text else self.view


@dataclass
class Unfinished:
    """An array or a dtype whose state comes later; ``keys``: under which numbers the file remembers it."""

    dtype: np.dtype | None = None
    keys: list[int] = field(default_factory=list)


def read_bytes(raw: object) -> bytes | memoryview:
    """The bytes that stand for an array's content: Python 2 wrote a text, one character for each."""
    if isinstance(raw, LongBytes):
        return raw.read()
    if isinstance(raw, str):
        return raw.encode("latin-1")
    if isinstance(raw, bytes):
        return raw
    raise Malformed("the content of an array is no bytes")


def read_dtype(value: object) -> np.dtype:
    """The type of an array's numbers."""
    dtype = value.dtype if isinstance(value, Unfinished) else value
    if not isinstance(dtype, np.dtype):
        raise Malformed("an array without a type of numbers")
    return dtype


def build_array(shape: object, dtype: object, raw: object, *, fortran: bool, budget: Budget) -> np.ndarray:
    """An array of its own memory.

    Args:
        shape: tuple of lengths.
        dtype: np.dtype, or an unfinished one.
        raw: the bytes, exactly as many as the shape needs.
        fortran: the first index runs fastest.
        budget: what the bytes are taken from.

    Raises:
        Malformed: parts that do not go together.
    """
    kind, content = read_dtype(dtype), read_bytes(raw)
    if not isinstance(shape, tuple | list) or len(shape) > MAX_DIMENSIONS:
        raise Malformed("an array whose shape is no tuple of lengths")
    if not all(type(n) is int and n >= 0 and n.bit_length() <= MAX_BITS for n in shape):
        raise Malformed("an array with a negative or huge length")
    if prod(shape) * kind.itemsize != len(content):
        raise Malformed("an array whose bytes are more or fewer than its shape needs")
    budget.spend(len(content))
    flat = np.frombuffer(content, kind) if len(content) else np.empty(0, kind)
    return flat.reshape(shape, order="F" if fortran else "C").copy(order="K")


def _arguments(args: object, *counts: int) -> Sequence[Any]:
    if not isinstance(args, tuple | list) or len(args) not in counts:
        raise Malformed("a known function with other arguments")
    return args


def _reconstruct(args: object, budget: Budget) -> Unfinished:
    kind, _, _ = _arguments(args, 3)
    if not isinstance(kind, Name) or kind.text != "numpy.ndarray":
        raise Malformed("an array of a class of its own")
    return Unfinished()


def _from_buffer(args: object, budget: Budget) -> np.ndarray:
    raw, dtype, shape, order = _arguments(args, 4)
    fortran = isinstance(order, str) and order == "F"
    return build_array(shape, dtype, raw, fortran=fortran, budget=budget)


def _scalar(args: object, budget: Budget) -> Any:
    dtype, raw = _arguments(args, 2)
    return build_array((), dtype, raw, fortran=False, budget=budget)[()]


def _dtype(args: object, budget: Budget) -> Unfinished:
    code = _arguments(args, 1, 2, 3)[0]
    if not isinstance(code, str) or not NUMBER.fullmatch(code):
        raise Malformed(
            f"an array of {code[:20] if isinstance(code, str) else 'parts'!r}, which are no numbers"
        )
    return Unfinished(np.dtype(code))


def _encode(args: object, budget: Budget) -> bytes | LongBytes:
    text, encoding = _arguments(args, 2)
    if not isinstance(encoding, str) or encoding not in LATIN_1 or not isinstance(text, str | LongText):
        raise Malformed("bytes in another encoding than Latin-1")
    if isinstance(text, LongText):
        return LongBytes(text.view, text=True)
    budget.spend(len(text))
    return text.encode("latin-1")


def _ordered_dict(args: object, budget: Budget) -> dict:
    mapping: dict = {}
    for items in _arguments(args, 0, 1):
        if not isinstance(items, list | tuple):
            raise Malformed("a dictionary of no list of pairs")
        budget.spend(len(items))
        for item in items:
            key, value = _arguments(item, 2)
            set_item(mapping, key, value)
    return mapping


def _default_dict(args: object, budget: Budget) -> dict:
    _arguments(args, 0, 1)
    return {}


#: Global of a file -> what is built for it.
FUNCTIONS: dict[str, Callable[[object, Budget], object]] = {
    **{f"{core}.multiarray._reconstruct": _reconstruct for core in CORES},
    **{f"{core}.multiarray.scalar": _scalar for core in CORES},
    **{f"{core}.numeric._frombuffer": _from_buffer for core in CORES},
    **{f"{builtins}.bytes": lambda args, _: bytes(*_arguments(args, 0)) for builtins in BUILTINS},
    "numpy.dtype": _dtype,
    "_codecs.encode": _encode,
    "collections.OrderedDict": _ordered_dict,
    "collections.defaultdict": _default_dict,
}
NAMES = {*FUNCTIONS, "numpy.ndarray", *(f"{b}.{factory}" for b in BUILTINS for factory in FACTORIES)}


def find(module: object, name: object) -> Name:
    """The global that a file names.

    Raises:
        Malformed: it is not one of plain data.
    """
    # The text of nested tuples has no bound: only texts are put into a message.
    text = f"{module}.{name}" if isinstance(module, str) and isinstance(name, str) else "no name"
    if text not in NAMES:
        raise Malformed(f"it names {text[:80]!r}, and only plain data with NumPy arrays is read")
    return Name(text)


def call(function: object, args: object, budget: Budget) -> object:
    """What a file means by applying a global to arguments."""
    if not isinstance(function, Name) or function.text not in FUNCTIONS:
        raise Malformed("it applies what is no function of plain data")
    return FUNCTIONS[function.text](args, budget)


def finish(target: object, state: object, budget: Budget) -> object:
    """The array or dtype that a later state completes; attributes of a dictionary are dropped."""
    if isinstance(target, dict) and isinstance(state, dict):
        return target
    if not isinstance(target, Unfinished) or not isinstance(state, tuple | list):
        raise Malformed("it gives a state to what has none")
    if target.dtype is None:
        _, shape, dtype, fortran, raw = _arguments(state, 5)
        columns_first = isinstance(fortran, int) and fortran == 1
        return build_array(shape, dtype, raw, fortran=columns_first, budget=budget)
    _, order, *record = _arguments(state, 8, 9)
    if not isinstance(order, str) or order not in BYTE_ORDERS or any(part is not None for part in record[:3]):
        raise Malformed("an array of records")
    return target.dtype.newbyteorder(order)  # type: ignore[arg-type]


def set_item(mapping: dict, key: object, value: object) -> None:
    """``mapping[key] = value`` for texts and numbers.

    Nested tuples take unbounded time to hash, and long integers can be made to have the same hash, all of them.
    """
    if not isinstance(key, str | bytes | int | float | None):
        raise Malformed("a dictionary with a key that is no text or number")
    if isinstance(key, int) and key.bit_length() > MAX_BITS:
        raise Malformed("a dictionary with a huge number as a key")
    mapping[key] = value
