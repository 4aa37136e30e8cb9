# SPDX-License-Identifier: Apache-2.0
"""Python's collector of cyclic garbage, kept from looking at what cannot be any."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_paused() -> Iterator[None]:
    """For work that makes many objects and no garbage, such as the parsing of a large file.

    With each quarter more of them the collector looks at all objects that there are, which takes longer than making
    them, and more so the less of them a cache can hold.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
