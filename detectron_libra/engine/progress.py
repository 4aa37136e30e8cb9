# SPDX-License-Identifier: Apache-2.0
"""Detectron's line about a test that is under way, and how far it says that the test has come."""

from __future__ import annotations

import logging
import re
import time
from datetime import timedelta
from pathlib import Path

log = logging.getLogger(__name__)

#: Images between two lines.
PERIOD = 10
#: Bytes at the end of a log that hold its last line about progress.
TAIL = 4096
_LINE = re.compile(rb"im_detect: range \[\d+, \d+\] of \d+: (\d+)/\d+ ")


class Progress:
    """Logs ``im_detect: range [first, last] of all: number/last 0.123s (eta: 0:01:02)``, numbers counted from 1.

    Args:
        first: place in the data set of the first image, from 0.
        count: images of the range.
        total: images of the data set.
    """

    def __init__(self, first: int, count: int, total: int) -> None:
        self._first, self._count, self._total = first, count, total
        self._due = 1
        self._begun = time.perf_counter()

    def __call__(self, done: int) -> None:
        """Takes how many images of the range are done; tells of the first one, the last one, and some between."""
        if done < self._due and done < self._count:
            return
        self._due = done + PERIOD
        seconds = (time.perf_counter() - self._begun) / done
        log.info(
            "im_detect: range [%d, %d] of %d: %d/%d %.3fs (eta: %s)",
            self._first + 1,
            self._first + self._count,
            self._total,
            self._first + done,
            self._first + self._count,
            seconds,
            timedelta(seconds=int(seconds * (self._count - done))),
        )


def last_image(log_file: Path | str) -> int | None:
    """The number of the last image that a log tells of, from 1; None where it tells of none."""
    try:
        with open(log_file, "rb") as stream:
            stream.seek(0, 2)
            stream.seek(max(0, stream.tell() - TAIL))
            found = _LINE.findall(stream.read())
    except OSError:
        return None
    return int(found[-1]) if found else None
