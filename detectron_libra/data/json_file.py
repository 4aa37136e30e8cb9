# SPDX-License-Identifier: Apache-2.0
"""Reading of annotation files: UTF-8 JSON, and one line about whatever is wrong with a file."""

from __future__ import annotations

import json
import logging
import os
import stat
from typing import Any

from detectron_libra.data.faults import ERROR, Faults, quoted
from detectron_libra.errors import InputError
from detectron_libra.garbage import collector_paused

log = logging.getLogger(__name__)

#: A JSON of this many bytes takes seconds to read: worth a line.
LARGE_JSON = 50_000_000


#: First bytes of what is no UTF-8, and what to tell; the longer ones first.
_OTHER_CONTENT = (
    (b"\x1f\x8b", "is compressed (gzip); unpack it"),
    (b"PK\x03\x04", "is compressed (zip); unpack it"),
    (b"\xff\xfe\x00\x00", "holds UTF-32; save it as UTF-8"),
    (b"\x00\x00\xfe\xff", "holds UTF-32; save it as UTF-8"),
    (b"\xff\xfe", "holds UTF-16; save it as UTF-8"),
    (b"\xfe\xff", "holds UTF-16; save it as UTF-8"),
)


def read_json(file: str, *, leave_out: tuple[str, ...] = ()) -> dict[str, Any]:
    """The top-level object of a JSON file in UTF-8, with or without a byte order mark.

    Args:
        leave_out: keys that are dropped wherever they are, before the rest of the file is parsed: most of the
            memory that a file with masks takes.

    Raises:
        InputError: absent, no plain file, empty, another encoding, a syntax error (with line and column), a key that
            stands twice in an object, or not an object.
    """
    text = _read_text(file)
    faults = Faults(file)

    def build(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        entry = dict(pairs)
        if len(entry) != len(pairs):
            _note_repeated(pairs, entry, faults)
        for key in leave_out:
            entry.pop(key, None)
        return entry

    try:
        with collector_paused():
            content = json.loads(text, object_pairs_hook=build)
    except json.JSONDecodeError as e:
        cut = " (the file ends too early: cut?)" if e.pos >= len(e.doc.rstrip()) - 1 else ""
        raise InputError(f"{file}: no JSON at line {e.lineno} column {e.colno}: {e.msg}{cut}") from e
    except RecursionError as e:
        raise InputError(f"{file}: no usable JSON: nested too deeply") from e
    except ValueError as e:
        raise InputError(f"{file}: no usable JSON: a number in it is too long ({e})") from e
    if not isinstance(content, dict):
        hint = " (detection results?)" if isinstance(content, list) else ""
        raise InputError(f"{file}: not a COCO data set: the top level is a {type(content).__name__}{hint}")
    error = faults.error()
    if error is not None:
        raise error
    return content


def _read_text(file: str) -> str:
    """The content of a plain file that is UTF-8 and not blank; InputError as read_json says."""
    try:
        status = os.stat(file)
        if stat.S_ISREG(status.st_mode) and status.st_size > LARGE_JSON:
            log.info("reading %s (%d MB)", file, status.st_size // 1_000_000)
        # A reader would wait for a pipe's writer, and for the end of a device, for ever.
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
            raise InputError(
                f"{file}: a pipe or a device, not an annotation file; check DATASETS.<name>.ANN_FN"
            )
        with open(file, "rb") as stream:
            raw = stream.read()
    except FileNotFoundError as e:
        raise InputError(f"{file}: no such annotation file; check DATASETS.<name>.ANN_FN") from e
    except (OSError, ValueError) as e:
        raise InputError(
            f"{file}: the annotation file cannot be read: {getattr(e, 'strerror', None) or e}"
        ) from e
    if not raw.strip():
        raise InputError(f"{file}: the annotation file is empty ({len(raw)} bytes); export it again")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        other = f"is no UTF-8 (byte {e.start}); save it as UTF-8"
        what = next((text for start, text in _OTHER_CONTENT if raw.startswith(start)), other)
        raise InputError(f"{file}: the annotation file {what}") from e


def _note_repeated(pairs: list[tuple[str, Any]], entry: dict[str, Any], faults: Faults) -> None:
    """Programs differ in which of the values they read: what one has checked, another would not train on."""
    keys = [key for key, _ in pairs]
    whose = f" of id {quoted(entry['id'])}" if "id" in entry else ""
    for key in entry:
        if keys.count(key) > 1:
            faults.add(ERROR, "stands twice in one object; keep one of them", f"key {quoted(key)}{whose}")
