# SPDX-License-Identifier: Apache-2.0
"""Ids and texts of a data set in a few arrays: worker processes share them, which they cannot do with objects.

A worker that looks at a Python object writes to its count of references, and gets a copy of its page of memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import torch
from torch import Tensor

#: Whole numbers that an array holds.
INT64 = range(-(2**63), 2**63)


def pack_ids(ids: Sequence[int | str]) -> Sequence[int | str]:
    """The same ids: numbers or texts as arrays; both kinds mixed, or numbers over 64 bits, as a tuple."""
    if all(isinstance(i, str) for i in ids):
        return Texts.of(ids)  # type: ignore[arg-type]
    if all(isinstance(i, int) and i in INT64 for i in ids):
        return Numbers(torch.tensor(ids, dtype=torch.int64))
    return tuple(ids)


class Numbers(Sequence[int]):
    """Whole numbers.

    Args:
        values: (N,) int64.
    """

    def __init__(self, values: Tensor) -> None:
        self._values = values

    def __len__(self) -> int:
        return len(self._values)

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> Numbers: ...
    def __getitem__(self, index: int | slice) -> int | Numbers:
        found = self._values[index]
        return Numbers(found) if isinstance(index, slice) else int(found)

    def __iter__(self):
        return iter(self._values.tolist())


class Texts(Sequence[str]):
    """Texts, one after the other in one array of bytes.

    Args:
        letters: (B,) uint8, UTF-8; starts: (N + 1,) int64, where each text begins.
    """

    def __init__(self, letters: Tensor, starts: Tensor) -> None:
        self._letters = letters
        self._starts = starts

    @classmethod
    def of(cls, texts: Sequence[str]) -> Texts:
        """Any texts; a lone surrogate, which JSON can hold, stays one."""
        rows = [text.encode("utf-8", "surrogatepass") for text in texts]
        lengths = torch.tensor([0, *map(len, rows)], dtype=torch.int64)
        joined = bytearray(b"".join(rows))
        letters = torch.frombuffer(joined, dtype=torch.uint8) if joined else torch.zeros(0, dtype=torch.uint8)
        return cls(letters, lengths.cumsum(0))

    def __len__(self) -> int:
        return len(self._starts) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        i = range(len(self))[index]  # negative indices, IndexError
        first, end = self._starts[i : i + 2].tolist()
        return self._letters[first:end].numpy().tobytes().decode("utf-8", "surrogatepass")
