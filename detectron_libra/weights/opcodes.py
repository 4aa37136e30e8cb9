# SPDX-License-Identifier: Apache-2.0
"""The machine that a pickle is a program for, without the operations that reach outside of it.

Source: CPython's Lib/pickletools.py describes every operation.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable

from detectron_libra.weights.arguments import Arguments
from detectron_libra.weights.pickled import (
    Budget,
    Malformed,
    Name,
    Unfinished,
    call,
    find,
    finish,
    set_item,
)

STOP = ord(pickle.STOP)


class Machine(Arguments):
    """Carries out the operations of one pickle: a stack, marks in it, and a memory.

    Args:
        data: the whole file.

    Raises:
        ArithmeticError, LookupError, TypeError, ValueError: by ``run``, where operations do not go together;
            Malformed (a ValueError) where the reason can be told.
    """

    def __init__(self, data: bytes):
        super().__init__(data)
        self.stack: list = []
        self.marks: list[int] = []
        self.memo: dict[int, object] = {}
        self.budget = Budget(len(data))

    def run(self) -> object:
        """What the pickle builds; may hold globals and unfinished arrays, see ``unpickle.require_plain``."""
        while (code := self.byte()) != STOP:
            if (push := PUSHED.get(code)) is not None:
                self.stack.append(push(self))
            elif (do := DONE.get(code)) is not None:
                do(self)
            else:
                raise Malformed(
                    f"operation {bytes([code])!r} at byte {self.at - 1} does not belong to plain data"
                )
        if self.at != self.end:
            raise Malformed(f"{self.end - self.at} bytes follow its end")
        if len(self.stack) != 1:
            raise Malformed(f"it ends with {len(self.stack)} values")
        return self.stack[0]

    def pop(self) -> object:
        """The top of the stack, taken from it; never from below a mark."""
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise Malformed("an operation without its arguments")
        return self.stack.pop()

    def several(self, count: int) -> tuple:
        """``count`` values from the top, the topmost last."""
        start = len(self.stack) - count
        if start < (self.marks[-1] if self.marks else 0):
            raise Malformed("an operation without its arguments")
        values = tuple(self.stack[start:])
        del self.stack[start:]
        return values

    def items(self) -> list:
        """All values above the last mark, and the mark is gone."""
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def drop(self) -> None:
        """Takes away the top, or the mark that stands there."""
        if self.marks and len(self.stack) == self.marks[-1]:
            self.marks.pop()
        else:
            self.pop()

    def append(self, values: list) -> None:
        """Adds to the list on top."""
        target = self.pop()
        if not isinstance(target, list):
            raise Malformed("it adds to a list that is none")
        target.extend(values)
        self.stack.append(target)

    def update(self, items: list) -> None:
        """Adds keys and values, in turn, to the dictionary on top."""
        target = self.pop()
        if not isinstance(target, dict):
            raise Malformed("it adds to a dictionary that is none")
        for key, value in zip(items[::2], items[1::2], strict=True):
            set_item(target, key, value)
        self.stack.append(target)

    def mapping(self) -> dict:
        """A dictionary of the keys and values above the last mark."""
        items = self.items()
        self.stack.append({})
        self.update(items)
        return self.stack.pop()

    def remember(self, key: int) -> None:
        """Keeps the top, which stays where it is, under a number."""
        value = self.pop()
        self.stack.append(value)
        if isinstance(value, Unfinished):
            value.keys.append(key)
        self.memo[key] = value

    def named(self) -> Name:
        """The global whose module and name are on top."""
        module, name = self.several(2)
        return find(module, name)

    def applied(self) -> object:
        """A global applied to the arguments on top."""
        function, arguments = self.several(2)
        return call(function, arguments, self.budget)

    def built(self) -> object:
        """An array or dtype with the state on top; it also takes the place of the unfinished one in the memory."""
        target, state = self.several(2)
        result = finish(target, state, self.budget)
        if isinstance(target, Unfinished):
            for key in target.keys:
                if self.memo[key] is target:
                    self.memo[key] = result
        return result


#: Operations whose result is put on the stack, by their codes.
PUSHED: dict[int, Callable[[Machine], object]] = {
    pickle.NONE[0]: lambda m: None,
    pickle.NEWTRUE[0]: lambda m: True,
    pickle.NEWFALSE[0]: lambda m: False,
    pickle.INT[0]: Machine.integer,
    pickle.BININT[0]: lambda m: m.number(4, signed=True),
    pickle.BININT1[0]: lambda m: m.byte(),
    pickle.BININT2[0]: lambda m: m.number(2),
    pickle.LONG[0]: lambda m: int(m.digits().rstrip("L")),
    pickle.LONG1[0]: lambda m: m.long(m.byte()),
    pickle.LONG4[0]: lambda m: m.long(m.number(4)),
    pickle.FLOAT[0]: lambda m: float(m.digits()),
    pickle.BINFLOAT[0]: lambda m: struct.unpack(">d", m.take(8))[0],
    pickle.STRING[0]: Machine.quoted,
    pickle.BINSTRING[0]: lambda m: m.string(m.number(4)),
    pickle.SHORT_BINSTRING[0]: lambda m: m.string(m.byte()),
    pickle.UNICODE[0]: lambda m: m.line().decode("raw_unicode_escape"),
    pickle.BINUNICODE[0]: lambda m: m.text(m.number(4)),
    pickle.SHORT_BINUNICODE[0]: lambda m: m.text(m.byte()),
    pickle.BINUNICODE8[0]: lambda m: m.text(m.number(8)),
    pickle.BINBYTES[0]: lambda m: m.binary(m.number(4)),
    pickle.SHORT_BINBYTES[0]: lambda m: m.binary(m.byte()),
    pickle.BINBYTES8[0]: lambda m: m.binary(m.number(8)),
    pickle.BYTEARRAY8[0]: lambda m: m.binary(m.number(8)),
    pickle.EMPTY_DICT[0]: lambda m: {},
    pickle.DICT[0]: Machine.mapping,
    pickle.EMPTY_LIST[0]: lambda m: [],
    pickle.LIST[0]: Machine.items,
    pickle.EMPTY_TUPLE[0]: lambda m: (),
    pickle.TUPLE[0]: lambda m: tuple(m.items()),
    pickle.TUPLE1[0]: lambda m: m.several(1),
    pickle.TUPLE2[0]: lambda m: m.several(2),
    pickle.TUPLE3[0]: lambda m: m.several(3),
    pickle.GET[0]: lambda m: m.memo[int(m.digits())],
    pickle.BINGET[0]: lambda m: m.memo[m.byte()],
    pickle.LONG_BINGET[0]: lambda m: m.memo[m.number(4)],
    pickle.GLOBAL[0]: lambda m: find(m.line().decode("utf-8"), m.line().decode("utf-8")),
    pickle.STACK_GLOBAL[0]: Machine.named,
    pickle.REDUCE[0]: Machine.applied,
    pickle.BUILD[0]: Machine.built,
}

#: Operations that change what is on the stack.
DONE: dict[int, Callable[[Machine], object]] = {
    pickle.PROTO[0]: lambda m: m.byte(),
    pickle.FRAME[0]: lambda m: m.number(8),
    pickle.MARK[0]: lambda m: m.marks.append(len(m.stack)),
    pickle.POP[0]: Machine.drop,
    pickle.POP_MARK[0]: Machine.items,
    pickle.DUP[0]: lambda m: m.stack.append(m.stack[-1]),
    pickle.APPEND[0]: lambda m: m.append([m.pop()]),
    pickle.APPENDS[0]: lambda m: m.append(m.items()),
    pickle.SETITEM[0]: lambda m: m.update(list(m.several(2))),
    pickle.SETITEMS[0]: lambda m: m.update(m.items()),
    pickle.PUT[0]: lambda m: m.remember(int(m.digits())),
    pickle.BINPUT[0]: lambda m: m.remember(m.byte()),
    pickle.LONG_BINPUT[0]: lambda m: m.remember(m.number(4)),
    pickle.MEMOIZE[0]: lambda m: m.remember(len(m.memo)),
}
