# SPDX-License-Identifier: Apache-2.0
"""Pickles inside PyTorch's files, read so that nothing of theirs runs: what is no tensor becomes a placeholder.

A checkpoint of a framework names the framework's classes. None is imported here, so that it can be read without the
framework and cannot call anything: every name stands for an object that accepts all a pickle does to it, and does
nothing. Every method that a pickle can reach by a name (``__setstate__`` above all) is such an empty one.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from collections.abc import Iterator

import torch

#: Tuples that a pickle of weights may hold, some five for each tensor. Hashing a tuple in a tuple in a tuple recurses.
MOST_TUPLES = 30_000
MOST_DIMENSIONS = 64  # of a tensor of PyTorch

DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class Damaged(Exception):
    """What a file says is impossible; the message has no file name yet."""


class Placeholder:
    """Stands for an object of a class that is not ours to run: accepts everything and holds nothing."""

    __slots__ = ()

    def __new__(cls, *args, **kwargs):
        return super().__new__(cls)

    def __init__(self, *args, **kwargs):
        pass

    def __call__(self, *args, **kwargs):
        return Placeholder()

    def __setstate__(self, state):
        pass

    def __setitem__(self, key, value):
        pass

    def append(self, item):
        """Nothing."""

    def extend(self, items):
        """Nothing."""

    def add(self, item):
        """Nothing."""


class PlainDict(dict):
    """An OrderedDict of a file: the items alone, no attributes."""

    __slots__ = ()

    def __setstate__(self, state):
        pass


class StorageKind(Placeholder):
    """A name such as ``torch.FloatStorage``."""

    __slots__ = ("dtype",)

    def __init__(self, dtype: torch.dtype):
        self.dtype = dtype


class Storage(Placeholder):
    """Numbers that lie elsewhere in the file: ``count`` of them, under ``key``, from number ``start`` on."""

    __slots__ = ("count", "dtype", "key", "start")

    def __init__(self, key: str, dtype: torch.dtype, count: int, start: int = 0):
        self.key, self.dtype, self.count, self.start = key, dtype, count, start


class TensorPlace(Placeholder):
    """A tensor that is not made yet, known to lie inside its storage.

    Raises:
        Damaged: it does not, or the numbers are none.
    """

    __slots__ = ("offset", "size", "storage", "stride")

    def __new__(cls, storage: object, offset: object, size: object, stride: object, *rest: object):
        # not __init__, which a pickle can leave out
        self = super().__new__(cls)
        self.storage = storage
        self.size, self.stride = whole_numbers(size), whole_numbers(stride)
        (self.offset,) = whole_numbers((offset,))
        if not isinstance(storage, Storage) or len(self.size) != len(self.stride):
            raise Damaged("a tensor without a storage")
        if len(self.size) > MOST_DIMENSIONS:
            raise Damaged(f"a tensor of {len(self.size)} dimensions")
        last = self.offset + sum((n - 1) * step for n, step in zip(self.size, self.stride, strict=True))
        count = math.prod(self.size)
        if count and (last >= storage.count or count > storage.count):
            raise Damaged(f"a tensor of {count} numbers in a storage of {storage.count}")
        return self


class Parameter(Placeholder):
    """A parameter is its tensor."""

    __slots__ = ()

    def __new__(cls, data=None, *rest):
        return data


KNOWN: dict[tuple[str, str], object] = {
    ("collections", "OrderedDict"): PlainDict,
    ("torch._utils", "_rebuild_tensor"): TensorPlace,
    ("torch._utils", "_rebuild_tensor_v2"): TensorPlace,
    ("torch._utils", "_rebuild_parameter"): Parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): Parameter,
}


def whole_numbers(values: object) -> tuple[int, ...]:
    """Sizes, strides, offsets: whole numbers that are not negative, else Damaged."""
    if not isinstance(values, (tuple, list)) or not all(type(v) is int and v >= 0 for v in values):
        raise Damaged("sizes of a tensor that are no whole numbers")
    return tuple(values)


class InertUnpickler(pickle.Unpickler):
    """Builds dicts, lists, tuples, numbers, texts, ``TensorPlace`` and ``Placeholder``; never anything else."""

    def __init__(self, content: bytes):
        super().__init__(io.BytesIO(content), encoding="latin1")
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> object:
        if name in DTYPES and module in ("torch", "torch.cuda", "torch.storage"):
            return StorageKind(DTYPES[name])
        return KNOWN.get((module, name), Placeholder)

    def persistent_load(self, pid: object) -> object:
        """A storage by its description: ("storage", kind, key, device, count) and, in old files, a part of it."""
        if not isinstance(pid, tuple) or len(pid) not in (5, 6) or pid[0] not in ("storage", b"storage"):
            return Placeholder()
        kind, key, (count,) = pid[1], str(pid[2]), whole_numbers((pid[4],))
        if not isinstance(kind, StorageKind):
            return Placeholder()
        whole = self.storages.setdefault(key, Storage(key, kind.dtype, count))
        if (whole.dtype, whole.count) != (kind.dtype, count):
            raise Damaged(f"two descriptions of storage {key}")
        if len(pid) == 5 or pid[5] is None:
            return whole
        start, length = whole_numbers(pid[5][1:])
        if start + length > count:
            raise Damaged(f"a part of storage {key} that is larger than the whole")
        return Storage(key, kind.dtype, length, start)


def pickles(content: bytes) -> Iterator[tuple[int, int]]:
    """Begin and end of the pickles that follow one another in ``content``, each checked without running it.

    Raises:
        Damaged: the next bytes are no pickle, or one that would take more memory than its size explains.
    """
    stream = io.BytesIO(content)
    while True:
        begin, tuples = stream.tell(), 0
        try:
            for opcode, argument, _ in pickletools.genops(stream):
                tuples += opcode.name.startswith("TUPLE")
                # Pickle's memo is an array: a large index would allocate all places before it.
                if "PUT" in opcode.name and int(argument) > len(content):
                    raise Damaged("a pickle with a memo beyond its size")
        except (ValueError, UnicodeError, IndexError, OverflowError) as e:
            raise Damaged("no pickle, or one that is cut off") from e
        if tuples > MOST_TUPLES:
            raise Damaged(f"a pickle with {tuples} tuples, more than weights have")
        yield begin, stream.tell()


def unpickle(content: bytes) -> tuple[object, dict[str, Storage]]:
    """What one pickle holds, and the storages that it names, by key.

    Raises:
        Damaged: it cannot be read.
    """
    unpickler = InertUnpickler(content)
    try:
        return unpickler.load(), unpickler.storages
    except Damaged:
        raise
    except Exception as e:  # bytes that are hostile or damaged can end in any of them
        raise Damaged(f"its pickle cannot be read ({type(e).__name__})") from e
