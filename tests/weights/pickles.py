# SPDX-License-Identifier: Apache-2.0
"""Pickles as others write them: byte by byte as Python 2 with NumPy 1 did, and with calls that no file may make."""

import pickle
import struct

import numpy as np


def short(text: str) -> bytes:
    """A str of Python 2."""
    content = text.encode("latin-1")
    return pickle.SHORT_BINSTRING + bytes([len(content)]) + content


def integer(value: int) -> bytes:
    return pickle.BININT + struct.pack("<i", value)


def array(a: np.ndarray) -> bytes:
    """An array as cPickle of Python 2.7 with NumPy 1 writes it under protocol 2, with dtype and content as str."""
    raw = a.tobytes(order="A")
    order = "|" if a.dtype.itemsize == 1 else a.dtype.str[0]
    code = short(a.dtype.str[1:])
    dtype = b"cnumpy\ndtype\n" + code + integer(0) + integer(1) + pickle.TUPLE3 + pickle.REDUCE
    dtype += pickle.MARK + integer(3) + short(order) + 3 * pickle.NONE + 2 * integer(-1) + integer(0)
    dtype += pickle.TUPLE + pickle.BUILD
    empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + integer(0) + pickle.TUPLE1
    empty += short("b") + pickle.TUPLE3 + pickle.REDUCE
    shape = pickle.MARK + b"".join(integer(n) for n in a.shape) + pickle.TUPLE
    fortran = pickle.NEWTRUE if a.flags.f_contiguous and not a.flags.c_contiguous else pickle.NEWFALSE
    content = pickle.BINSTRING + struct.pack("<i", len(raw)) + raw
    state = pickle.MARK + integer(1) + shape + dtype + fortran + content + pickle.TUPLE
    return empty + state + pickle.BUILD


def value(v: object) -> bytes:
    """A str, array, or dictionary of them."""
    if isinstance(v, np.ndarray):
        return array(v)
    if isinstance(v, str) and len(v) < 256:
        return short(v)
    if isinstance(v, str):
        return pickle.BINSTRING + struct.pack("<i", len(v)) + v.encode("latin-1")
    assert isinstance(v, dict)
    items = b"".join(value(key) + value(part) for key, part in v.items())
    return pickle.EMPTY_DICT + pickle.MARK + items + pickle.SETITEMS


def python2(v: object) -> bytes:
    """A whole file as Python 2 wrote it."""
    return pickle.PROTO + b"\x02" + value(v) + pickle.STOP


def calls(module: str, name: str, *arguments: str) -> bytes:
    """A file that applies a global to texts."""
    args = pickle.MARK + b"".join(short(a) for a in arguments) + pickle.TUPLE
    return b"\x80\x02c" + f"{module}\n{name}\n".encode() + args + pickle.REDUCE + pickle.STOP
