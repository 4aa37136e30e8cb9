# SPDX-License-Identifier: Apache-2.0
"""Dictionaries of NumPy arrays as a pickle that Python 2 and 3, NumPy 1 and 2 read, whatever writes it.

NumPy 2 names its functions ``numpy._core``, which NumPy 1 does not have: the operations are therefore written here, as
Python 3 with NumPy 1 would under protocol 2. One array is in memory twice while it is written, not the file.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from typing import BinaryIO

import numpy as np

LARGEST_CONTENT = 2**32 - 1  # bytes; what protocol 2 counts with
ORDERS = {"<": b"<", ">": b">", "=": b"<" if np.little_endian else b">", "|": b"|"}

#: A dictionary of texts, arrays, and dictionaries of them.
Tree = Mapping[str, "str | np.ndarray | Tree"]


def write_pickle_of(tree: Tree, file: BinaryIO) -> None:
    """Writes a file.

    Args:
        tree: dictionaries, texts and arrays of numbers; arrays in C order.
        file: open for binary writing.
    """
    file.write(pickle.PROTO + b"\x02")
    _write_dict(tree, file)
    file.write(pickle.STOP)


def _write_dict(tree: Tree, file: BinaryIO) -> None:
    file.write(pickle.EMPTY_DICT + pickle.MARK)
    for name, value in tree.items():
        _write_text(name.encode(), file)
        if isinstance(value, np.ndarray):
            _write_array(value, file)
        elif isinstance(value, str):
            _write_text(value.encode(), file)
        else:
            _write_dict(value, file)
    file.write(pickle.SETITEMS)


def _write_text(utf8: bytes, file: BinaryIO) -> None:
    assert len(utf8) <= LARGEST_CONTENT, "a text or an array beyond 4 GiB"
    file.write(pickle.BINUNICODE + len(utf8).to_bytes(4, "little"))
    file.write(utf8)


def _write_array(array: np.ndarray, file: BinaryIO) -> None:
    file.write(b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + _integer(0) + pickle.TUPLE1)
    file.write(_word(b"b") + pickle.TUPLE3 + pickle.REDUCE + pickle.MARK + _integer(1))
    file.write(pickle.MARK + b"".join(map(_integer, array.shape)) + pickle.TUPLE)
    file.write(_dtype(array.dtype) + pickle.NEWFALSE)
    # Bytes do not exist in protocol 2: a text of as many characters, which is encoded when it is read.
    file.write(b"c_codecs\nencode\n")
    _write_text(array.tobytes().decode("latin-1").encode(), file)
    _write_text(b"latin1", file)
    file.write(pickle.TUPLE2 + pickle.REDUCE + pickle.TUPLE + pickle.BUILD)


def _dtype(dtype: np.dtype) -> bytes:
    code = b"cnumpy\ndtype\n" + _word(dtype.str[1:].encode()) + _integer(0) + _integer(1) + pickle.TUPLE3
    state = _integer(3) + _word(ORDERS[dtype.byteorder]) + 3 * pickle.NONE + 2 * _integer(-1) + _integer(0)
    return code + pickle.REDUCE + pickle.MARK + state + pickle.TUPLE + pickle.BUILD


def _word(ascii_text: bytes) -> bytes:
    # The str of both Pythons.
    return pickle.SHORT_BINSTRING + bytes([len(ascii_text)]) + ascii_text


def _integer(value: int) -> bytes:
    return pickle.BININT + value.to_bytes(4, "little", signed=True)
