# SPDX-License-Identifier: Apache-2.0
"""Damaged files in their thousands: each gives a value or one line for the user, in time and in bounded memory."""

import resource
import signal
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from detectron_libra.errors import InputError, UsageError

#: Seconds that one file may take; a file of these tests takes milliseconds.
LIMIT_S = 20


def mutant(rng: np.random.Generator, data: bytes, tokens: Sequence[bytes], *, head: int = 0) -> bytes:
    """``data`` with a few bytes changed, cut out or doubled, or with tokens put in.

    Args:
        head: the damage lies in so many first bytes; 0: anywhere.
    """
    out = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        end = min(head, len(out)) if head else len(out)
        at = int(rng.integers(end + 1))
        kind = rng.integers(6)
        if kind == 0:
            out[at : at + 1] = rng.bytes(1)
        elif kind == 1:
            out[at : at + 4] = [b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff"][rng.integers(3)]
        elif kind == 2:
            del out[at : at + int(rng.integers(1, 40))]
        elif kind == 3:
            out[at:at] = out[at : at + int(rng.integers(1, 80))]
        elif kind == 4:
            out[at:at] = tokens[rng.integers(len(tokens))]
        else:
            del out[at:]
    return bytes(out)


def fuzz(
    read: Callable[[bytes], object], mutants: Sequence[bytes] | Callable[[int], bytes], count: int
) -> Counter:
    """Reads ``count`` mutants.

    Returns:
        How many were ``read`` and how many ``refused``.

    Raises:
        AssertionError: another exception, a message of several lines for a file that is read, too much time or memory.
    """

    def late(number, frame):
        raise AssertionError(f"a file took more than {LIMIT_S} s: {data!r}")

    before, results = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, Counter()
    handler = signal.signal(signal.SIGALRM, late)
    try:
        for k in range(count):
            data = mutants(k) if callable(mutants) else mutants[k]
            signal.alarm(LIMIT_S)
            try:
                read(data)
                results["read"] += 1
            except (InputError, UsageError) as e:
                assert str(e).strip(), data
                results["refused"] += 1
            except Exception as e:
                raise AssertionError(f"{type(e).__name__}: {e} of {data!r}") from e
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 400 * 1024, f"{grown} KiB more than before"
    return results
