# SPDX-License-Identifier: Apache-2.0
"""Pickles of plain data: numbers, texts, lists, dictionaries and NumPy arrays, read without running anything.

The file's operations are carried out here and not by Python's own unpickler: that one lets a file set attributes of
whatever object it is given, and a hundred bytes make it allocate gigabytes.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np

from detectron_libra.errors import InputError
from detectron_libra.weights.opcodes import Machine
from detectron_libra.weights.pickled import LongBytes, LongText, Malformed

LEAVES = (str, bytes, bool, int, float, complex, type(None), np.ndarray, np.generic, np.dtype)


def load_pickle(path: str | os.PathLike) -> object:
    """Reads a pickle of any protocol, written by Python 2 or 3.

    Args:
        path: the file.

    Returns:
        dict, list, tuple, str, bytes, int, float, bool, None, and NumPy arrays, scalars and dtypes of numbers, nested
        in any way. OrderedDict and defaultdict come as dict, Python 2's strings as str (Latin-1). Arrays have memory
        of their own.

    Raises:
        InputError: missing, damaged, or holding anything else; nothing in the file is run.
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file; check the path of the weights")
    try:
        data = Path(path).read_bytes()
    except (OSError, ValueError) as e:
        raise InputError(f"{path}: cannot be read ({getattr(e, 'strerror', None) or e})") from None
    return read_data(data, str(path))


def read_data(data: bytes, source: str) -> object:
    """``load_pickle`` of bytes; ``source`` is the file's name, for messages."""
    if not data:
        raise InputError(f"{source}: the file is empty; get it anew")
    try:
        value = Machine(data).run()
        require_plain(value)
        return value
    except (ArithmeticError, LookupError, MemoryError, TypeError, ValueError, struct.error) as e:
        reason = str(e) if isinstance(e, Malformed) else "its operations do not go together"
        raise InputError(f"{source}: not a pickle of plain data, or damaged: {reason}") from None


def require_plain(value: object) -> None:
    """Raises Malformed where anything but data stands in a value: a bare global, an array without its content."""
    seen: set[int] = set()
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, LEAVES) or id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, dict):
            waiting.extend(part.values())
        elif isinstance(part, list | tuple):
            waiting.extend(part)
        elif isinstance(part, LongText | LongBytes):
            raise Malformed(f"a text of {len(part)} bytes")
        else:
            raise Malformed("a function or an unfinished array stands where data should")
