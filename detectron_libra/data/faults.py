# SPDX-License-Identifier: Apache-2.0
"""Faults of a data set: collected in one pass, grouped by kind, counted, the first few named."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from detectron_libra.errors import InputError

log = logging.getLogger(__name__)

#: Entries named per kind of fault: enough to find them, few enough for one line.
NAMED = 5
#: Kinds told in the text of the error itself; the log has all of them.
KINDS_IN_ERROR = 3

ERROR, DROP, NOTE = "error", "drop", "note"


@dataclass
class Kind:
    """Every fault of one kind."""

    level: str
    text: str
    count: int = 0
    first: list[str] = field(default_factory=list)

    def names(self) -> str:
        """The first entries, and how many more there are."""
        more = self.count - len(self.first)
        return ", ".join(self.first) + (f" and {more} more" if more else "")


class Faults:
    """What is wrong with one annotation file and its images.

    Args:
        source: the annotation file, named in every message.

    Attributes:
        kinds: (level, text) -> Kind, in the order they were met. Level ``error`` stops a run, ``drop`` counts
            annotations that are left out, ``note`` is told and nothing else.
        annotations: how many annotations the file holds (for "dropped 1 of 2805").
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.kinds: dict[tuple[str, str], Kind] = {}
        self.annotations = 0

    def add(self, level: str, text: str, name: str) -> None:
        """Count one fault of the kind ``text`` at the entry ``name``."""
        kind = self.kinds.setdefault((level, text), Kind(level, text))
        kind.count += 1
        if len(kind.first) < NAMED:
            kind.first.append(name)

    def of(self, level: str) -> list[Kind]:
        """The kinds of one level."""
        return [k for k in self.kinds.values() if k.level == level]

    @property
    def dropped(self) -> int:
        """Annotations that are left out."""
        return sum(k.count for k in self.of(DROP))

    def error_lines(self) -> list[str]:
        """One line per kind of error."""
        return [f"{k.names()}: {k.text}" for k in self.of(ERROR)]

    def warning_lines(self) -> list[str]:
        """One line for everything dropped, then one per note."""
        notes = [f"{self.source}: {k.text}: {k.names()}" for k in self.of(NOTE)]
        drops = self.of(DROP)
        if not drops:
            return notes
        if len(drops) == 1:
            what = f"{drops[0].text}; ids {drops[0].names()}"
        else:
            what = "; ".join(f"{k.count} {k.text} (ids {k.names()})" for k in drops)
        return [f"{self.source}: dropped {self.dropped} of {self.annotations} annotations: {what}", *notes]

    def report(self) -> None:
        """Log the warnings, then raise when there are errors.

        Raises:
            InputError: one line with the first kinds of error; with several kinds, the log has every one.
        """
        for line in self.warning_lines():
            log.warning("%s", line)
        lines = self.error_lines()
        if not lines:
            return
        if len(lines) > 1:
            for line in lines:
                log.error("%s: %s", self.source, line)
        more = len(lines) - KINDS_IN_ERROR
        tail = f"; and {more} more kinds of faults (see the log, or tools/check_data.py)" if more > 0 else ""
        raise InputError(f"{self.source}: {'; '.join(lines[:KINDS_IN_ERROR])}{tail}")
