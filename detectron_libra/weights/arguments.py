# SPDX-License-Identifier: Apache-2.0
"""The bytes of a pickle, and the arguments that stand behind its operations."""

from __future__ import annotations

import re

from detectron_libra.weights.pickled import LongBytes, LongText, Malformed

#: Longer ones can only be the content of an array, and stay in the file until it is built.
LONGEST_TEXT = 2**20
LONGEST_NUMBER = 64  # characters of a number that is written out, and bytes of a long one
#: What Python 2's repr of a str writes for a character that it does not show.
ESCAPE = re.compile(rb"\\(?:[\\'\"abfnrtv]|x[0-9a-fA-F]{2})")


class Arguments:
    """Reads from the front to the end; every length is checked against what is left before anything is allocated.

    Args:
        data: the whole file.

    Raises:
        Malformed: by every method, where the bytes are not what they should be.
    """

    def __init__(self, data: bytes):
        self.data, self.view, self.at, self.end = data, memoryview(data), 0, len(data)

    def take(self, count: int) -> memoryview:
        """The next ``count`` bytes, not copied."""
        start = self.at
        if count > self.end - start:
            raise Malformed(f"it ends too early, at byte {self.end}")
        self.at = start + count
        return self.view[start : self.at]

    def byte(self) -> int:
        """The next byte; every operation begins with one."""
        if self.at == self.end:
            raise Malformed(f"it ends too early, at byte {self.end}")
        self.at += 1
        return self.data[self.at - 1]

    def line(self) -> bytes:
        """The bytes up to the end of the line, without it."""
        end = self.data.find(b"\n", self.at)
        if end < 0:
            raise Malformed(f"it ends too early, at byte {self.end}")
        return bytes(self.take(end + 1 - self.at)[:-1])

    def number(self, size: int, *, signed: bool = False) -> int:
        """An integer of ``size`` bytes."""
        return int.from_bytes(self.take(size), "little", signed=signed)

    def long(self, size: int) -> int:
        """An integer whose ``size`` the file chose."""
        if size > LONGEST_NUMBER:
            raise Malformed(f"a number of {size} bytes")
        return self.number(size, signed=True)

    def digits(self) -> str:
        """A number as it is written out on a line."""
        text = self.line()
        if len(text) > LONGEST_NUMBER:
            raise Malformed(f"a number of {len(text)} characters")
        return text.decode("ascii")

    def integer(self) -> int | bool:
        """An integer on a line; 00 and 01 are truth values."""
        text = self.digits()
        return text == "01" if text in ("00", "01") else int(text)

    def string(self, size: int) -> str | LongBytes:
        """A string of Python 2."""
        view = self.take(size)
        return str(view, "latin-1") if size <= LONGEST_TEXT else LongBytes(view)

    def text(self, size: int) -> str | LongText:
        """A text in UTF-8."""
        view = self.take(size)
        return str(view, "utf-8", "surrogatepass") if size <= LONGEST_TEXT else LongText(view)

    def binary(self, size: int) -> bytes | LongBytes:
        """Bytes of Python 3."""
        view = self.take(size)
        return bytes(view) if size <= LONGEST_TEXT else LongBytes(view)

    def quoted(self) -> str | LongBytes:
        """A string of Python 2 on a line, between quotes and with escapes."""
        text = self.line().strip()
        if len(text) < 2 or text[:1] != text[-1:] or text[:1] not in b"'\"":
            raise Malformed("a text without its quotes")
        if b"\\" in ESCAPE.sub(b"", text[1:-1]):
            raise Malformed("a text with an unknown escape")
        content = text[1:-1].decode("unicode_escape")
        return content if len(content) <= LONGEST_TEXT else LongBytes(memoryview(content.encode("latin-1")))
