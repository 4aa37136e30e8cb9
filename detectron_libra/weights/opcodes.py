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
        while (code := bytes(self.take(1))) != pickle.STOP:
            if code in PUSHED:
                self.stack.append(PUSHED[code](self))
            elif code in DONE:
                DONE[code](self)
            else:
                raise Malformed(f"operation {code!r} at byte {self.at - 1} does not belong to plain data")
        if self.left():
            raise Malformed(f"{self.left()} bytes follow its end")
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
        return tuple(reversed([self.pop() for _ in range(count)]))

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
PUSHED: dict[bytes, Callable[[Machine], object]] = {
    pickle.NONE: lambda m: None,
    pickle.NEWTRUE: lambda m: True,
    pickle.NEWFALSE: lambda m: False,
    pickle.INT: Machine.integer,
    pickle.BININT: lambda m: m.number(4, signed=True),
    pickle.BININT1: lambda m: m.number(1),
    pickle.BININT2: lambda m: m.number(2),
    pickle.LONG: lambda m: int(m.digits().rstrip("L")),
    pickle.LONG1: lambda m: m.long(m.number(1)),
    pickle.LONG4: lambda m: m.long(m.number(4)),
    pickle.FLOAT: lambda m: float(m.digits()),
    pickle.BINFLOAT: lambda m: struct.unpack(">d", m.take(8))[0],
    pickle.STRING: Machine.quoted,
    pickle.BINSTRING: lambda m: m.string(m.number(4)),
    pickle.SHORT_BINSTRING: lambda m: m.string(m.number(1)),
    pickle.UNICODE: lambda m: m.line().decode("raw_unicode_escape"),
    pickle.BINUNICODE: lambda m: m.text(m.number(4)),
    pickle.SHORT_BINUNICODE: lambda m: m.text(m.number(1)),
    pickle.BINUNICODE8: lambda m: m.text(m.number(8)),
    pickle.BINBYTES: lambda m: m.binary(m.number(4)),
    pickle.SHORT_BINBYTES: lambda m: m.binary(m.number(1)),
    pickle.BINBYTES8: lambda m: m.binary(m.number(8)),
    pickle.BYTEARRAY8: lambda m: m.binary(m.number(8)),
    pickle.EMPTY_DICT: lambda m: {},
    pickle.DICT: Machine.mapping,
    pickle.EMPTY_LIST: lambda m: [],
    pickle.LIST: Machine.items,
    pickle.EMPTY_TUPLE: lambda m: (),
    pickle.TUPLE: lambda m: tuple(m.items()),
    pickle.TUPLE1: lambda m: m.several(1),
    pickle.TUPLE2: lambda m: m.several(2),
    pickle.TUPLE3: lambda m: m.several(3),
    pickle.GET: lambda m: m.memo[int(m.digits())],
    pickle.BINGET: lambda m: m.memo[m.number(1)],
    pickle.LONG_BINGET: lambda m: m.memo[m.number(4)],
    pickle.GLOBAL: lambda m: find(m.line().decode("utf-8"), m.line().decode("utf-8")),
    pickle.STACK_GLOBAL: Machine.named,
    pickle.REDUCE: Machine.applied,
    pickle.BUILD: Machine.built,
}

#: Operations that change what is on the stack.
DONE: dict[bytes, Callable[[Machine], object]] = {
    pickle.PROTO: lambda m: m.number(1),
    pickle.FRAME: lambda m: m.number(8),
    pickle.MARK: lambda m: m.marks.append(len(m.stack)),
    pickle.POP: Machine.drop,
    pickle.POP_MARK: Machine.items,
    pickle.DUP: lambda m: m.stack.append(m.stack[-1]),
    pickle.APPEND: lambda m: m.append([m.pop()]),
    pickle.APPENDS: lambda m: m.append(m.items()),
    pickle.SETITEM: lambda m: m.update(list(m.several(2))),
    pickle.SETITEMS: lambda m: m.update(m.items()),
    pickle.PUT: lambda m: m.remember(int(m.digits())),
    pickle.BINPUT: lambda m: m.remember(m.number(1)),
    pickle.LONG_BINPUT: lambda m: m.remember(m.number(4)),
    pickle.MEMOIZE: lambda m: m.remember(len(m.memo)),
}
