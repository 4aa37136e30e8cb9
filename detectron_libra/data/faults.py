# SPDX-License-Identifier: Apache-2.0
"""Faults of a data set: collected in one pass, grouped by kind, counted, the first few named."""

from __future__ import annotations

import logging
import sys
from dataclasses import asdict, dataclass, field

from detectron_libra.errors import InputError, one_line

log = logging.getLogger(__name__)

#: Entries named per kind of fault: enough to find them, few enough for one line.
NAMED = 5
#: Letters of a faulty value that a message quotes.
QUOTED = 60
#: Kinds told in the text of the error itself; the log has all of them.
KINDS_IN_ERROR = 3

ERROR, DROP, NOTE = "error", "drop", "note"


def quoted(value: object) -> str:
    """A faulty value as a message shows it: one line of bounded length."""
    text = repr(value)
    return text if len(text) <= QUOTED else text[: QUOTED - 3] + "..."


@dataclass(frozen=True)
class Place:
    """Where a fault is.

    Attributes:
        part: the list of the annotation file: ``images``, ``annotations`` or ``categories``.
        index: position in that list, from 0.
        file: of the image, "" where it is not known.
        image_id, annotation_id: as in the annotation file; None where they are not known.
    """

    part: str
    index: int
    file: str = ""
    image_id: int | str | None = None
    annotation_id: int | str | None = None

    @property
    def annotation(self) -> str:
        """Short name of an annotation: its id, or its number in the file."""
        return f"#{self.index + 1} (no id)" if self.annotation_id is None else str(self.annotation_id)

    def __str__(self) -> str:
        if self.part != "annotations":
            return f"{self.part}[{self.index}]"
        image = "" if self.image_id is None else f" of image {self.image_id!r}"
        return f"annotation {self.annotation}{image}{f' ({self.file})' if self.file else ''}"


@dataclass
class Kind:
    """Every fault of one kind.

    Attributes:
        first: names of the first entries; places: where they are, None where that is the file as a whole.
    """

    level: str
    text: str
    count: int = 0
    first: list[str] = field(default_factory=list)
    places: list[Place | None] = field(default_factory=list)

    def names(self) -> str:
        """The first entries, and how many more there are."""
        shown = self.first[:NAMED]
        more = self.count - len(shown)
        return ", ".join(shown) + (f" and {more} more" if more else "")

    def ids(self) -> str:
        """As ``names``; says so where these are ids of annotations."""
        of_annotations = any(place is not None and place.part == "annotations" for place in self.places)
        return f"annotation ids: {self.names()}" if of_annotations else self.names()

    def places_named(self) -> str:
        """As ``names``, with file, image and annotation of each entry."""
        told = [
            name if place is None or place.part != "annotations" or self.level == ERROR else str(place)
            for name, place in zip(self.first, self.places, strict=True)
        ]
        return Kind(self.level, self.text, self.count, told).names()

    def as_dict(self) -> dict:
        """Level, text, count and the first entries, for programs."""
        first = [
            {"name": name, **({} if place is None else asdict(place))}
            for name, place in zip(self.first[:NAMED], self.places, strict=False)
        ]
        return {"level": self.level, "text": self.text, "count": self.count, "first": first}


class Faults:
    """What is wrong with one annotation file and its images.

    Args:
        source: the annotation file, named in every message.
        keep_all: remember every place and not the first few, as a repair needs it.

    Attributes:
        kinds: (level, text) -> Kind, in the order they were met. Level ``error`` stops a run, ``drop`` counts
            annotations that are left out, ``note`` is told and nothing else.
        annotations: how many annotations the file holds (for "dropped 1 of 2805").
    """

    def __init__(self, source: str, *, keep_all: bool = False) -> None:
        self.source = source
        self._most = sys.maxsize if keep_all else NAMED
        self.kinds: dict[tuple[str, str], Kind] = {}
        self.annotations = 0

    def add(self, level: str, text: str, name: str, place: Place | None = None) -> None:
        """Count one fault of the kind ``text`` at the entry ``name``."""
        text = one_line(text)
        kind = self.kinds.setdefault((level, text), Kind(level, text))
        kind.count += 1
        if len(kind.first) < self._most:
            kind.first.append(one_line(name))
            kind.places.append(place)

    def add_box(self, level: str, text: str, place: Place, detail: str = "") -> None:
        """Count one fault of an annotation; an error is told with its image and ``detail``, the rest by id."""
        self.add(level, text, f"{place}{detail}" if level == ERROR else place.annotation, place)

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
        notes = [f"{self.source}: {k.text}: {k.ids()}" for k in self.of(NOTE)]
        drops = self.of(DROP)
        if not drops:
            return notes
        if len(drops) == 1:
            what = f"{drops[0].text}; ids {drops[0].names()}"
        else:
            what = "; ".join(f"{k.count} {k.text} (ids {k.names()})" for k in drops)
        return [f"{self.source}: dropped {self.dropped} of {self.annotations} annotations: {what}", *notes]

    def error(self) -> InputError | None:
        """One line with the first kinds of error, for an exception; None where nothing is wrong."""
        lines = self.error_lines()
        if not lines:
            return None
        more = len(lines) - KINDS_IN_ERROR
        tail = f"; and {more} more kinds of faults (see the log, or tools/check_data.py)" if more > 0 else ""
        return InputError(f"{self.source}: {'; '.join(lines[:KINDS_IN_ERROR])}{tail}")

    def report(self) -> None:
        """Log the warnings, then raise when there are errors.

        Raises:
            InputError: one line with the first kinds of error; with several kinds, the log has every one.
        """
        for line in self.warning_lines():
            log.warning("%s", line)
        lines = self.error_lines()
        if len(lines) > 1:
            for line in lines:
                log.error("%s: %s", self.source, line)
        error = self.error()
        if error is not None:
            raise error
