# SPDX-License-Identifier: Apache-2.0
"""From what a user wrote to the type that a key has.

Detectron's rules (core/config.py, _decode_cfg_value and _check_and_coerce_cfg_value_type), and three things
that it refuses: an int where a float is due, a blank where text is due, ``off`` where that is a choice.
"""

import ast
import difflib
import json
import math
import reprlib
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np

from detectron_libra.config.fields import Key

_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 3, 80, 80


def shorten(value: Any) -> str:
    """A value as Python text that cannot fill the screen."""
    return _SHORT.repr(value.item() if isinstance(value, np.generic) else value)


def nearest(name: str, names: Iterable[str]) -> str:
    """`` (did you mean X?)`` for the known name that looks most like this one, else nothing."""
    known = list(names)
    leaf = name.rpartition(".")[2].upper()
    same = [k for k in known if k.upper() == name.upper()] or [
        k for k in known if k.rpartition(".")[2] == leaf
    ]
    if len(same) != 1:
        close = {k.upper(): k for k in same or known}
        same = [close[k] for k in difflib.get_close_matches(name.upper(), close, n=1)]
    return f" (did you mean {same[0]}?)" if same else ""


def decode(value: Any) -> Any:
    """Text as the Python or JSON literal it spells; anything else, and text that spells none, as it is."""
    if not isinstance(value, str):
        return value
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a path with a backslash is no mistake
            return ast.literal_eval(value)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        pass
    if value.lstrip().startswith(("{", "[")):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            pass
    return value


def coerce(raw: Any, key: Key) -> Any:
    """``raw`` as a value of ``key``.

    Returns:
        A value of the type of the key's default.
    Raises:
        ValueError: what is wrong and what would be right, without the key's name.
    """
    value = _text(raw, key) if key.kind is str else _CONVERT[key.kind](decode(raw), key)
    elements = value.ravel().tolist() if isinstance(value, np.ndarray) else value
    if not isinstance(elements, (tuple, list)):
        elements = [value]
    if key.length and len(elements) not in (0, key.length):
        raise ValueError(f"{shorten(value)} has {len(elements)} elements; it must have {key.length}")
    for element in elements:
        _check_range(element, key)
    return value


def _check_range(value: Any, key: Key) -> None:
    if key.choices and value not in key.choices:
        choices = ", ".join(repr(c) for c in key.choices)
        raise ValueError(f"{shorten(value)} is not a choice; it must be one of {choices}")
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        return
    if not math.isfinite(value):
        raise ValueError(f"{shorten(value)} is no finite number")
    if key.above is not None and not value > key.above:
        raise ValueError(f"{shorten(value)} is too small; it must be greater than {key.above}")
    if key.min is not None and value < key.min:
        raise ValueError(f"{shorten(value)} is too small; it must be at least {key.min}")
    if key.max is not None and value > key.max:
        raise ValueError(f"{shorten(value)} is too large; it must be at most {key.max}")


def _wrong(value: Any, wanted: str) -> ValueError:
    if value is None:
        return ValueError(f"there is no value; it must be {wanted}")
    return ValueError(f"{shorten(value)} is of type {type(value).__name__}; it must be {wanted}")


def _text(raw: Any, key: Key) -> str:
    value = decode(raw)
    if isinstance(raw, str) and value is not None:
        text = value if isinstance(value, str) else raw
        if not isinstance(value, bool) or text in key.choices:
            return text
    if isinstance(value, bool):  # YAML 1.1 reads `off` as False
        return next(
            (word for word in ("on", "off") if (word == "on") is value and word in key.choices), str(value)
        )
    if value is None:
        return "none" if "none" in key.choices and "" not in key.choices else ""
    if isinstance(value, (dict, list, tuple, set)):
        raise _wrong(value, "text")
    return str(value)


def _bool(value: Any, _key: Key) -> bool:
    if not isinstance(value, bool):
        raise _wrong(value, "True or False")
    return value


def _int(value: Any, _key: Key) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _wrong(value, "a whole number")
    if not -(2**63) <= value < 2**63:
        raise ValueError(f"{shorten(value)} does not fit into 64 bits")
    return value


def _float(value: Any, key: Key) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _wrong(value, "a number")
    try:
        return key.kind(value) if issubclass(key.kind, float) else float(value)
    except OverflowError:
        raise ValueError(f"{shorten(value)} is too large for a number") from None


def _sequence(value: Any, key: Key) -> tuple | list:
    if not isinstance(value, (tuple, list)):
        example = (
            f"; write ({value!r},)" if isinstance(value, key.of or ()) and not isinstance(value, bool) else ""
        )
        raise ValueError(f"{_wrong(value, 'a ' + key.kind.__name__)}{example}")
    return key.kind(_element(v, key) for v in value)


def _element(value: Any, key: Key) -> Any:
    if key.of is None:
        if isinstance(value, (tuple, list)):
            return [_element(v, key) for v in value]
        if value is None or isinstance(value, (str, int, float)):
            return value
        raise _wrong(value, "text, a number or a list")
    try:
        if key.of is str:
            if not isinstance(value, str):
                raise _wrong(value, "text")
            return value
        return _CONVERT[key.of](decode(value), key)
    except ValueError as e:
        raise ValueError(f"an element is wrong: {e}") from None


def _array(value: Any, key: Key) -> np.ndarray:
    wanted = f"{key.length} numbers"
    try:
        array = np.array(value, dtype=np.float64).reshape(np.shape(key.default))
    except (ValueError, TypeError, OverflowError):
        raise _wrong(value, wanted) from None
    return array


_CONVERT: dict[type, Any] = {
    bool: _bool,
    int: _int,
    float: _float,
    np.float64: _float,
    tuple: _sequence,
    list: _sequence,
    np.ndarray: _array,
}
