# SPDX-License-Identifier: Apache-2.0
"""Reading of annotation files: UTF-8 JSON, and one line about whatever is wrong with a file."""

from __future__ import annotations

import json
import logging
import os
from typing import Any

from detectron_libra.errors import InputError
from detectron_libra.garbage import collector_paused

log = logging.getLogger(__name__)

#: A JSON of this many bytes takes seconds to read: worth a line.
LARGE_JSON = 50_000_000


def read_json(file: str, *, leave_out: tuple[str, ...] = ()) -> dict[str, Any]:
    """The top-level object of a JSON file in UTF-8, with or without a byte order mark.

    Args:
        leave_out: keys that are dropped wherever they are, before the rest of the file is parsed: most of the
            memory that a file with masks takes.

    Raises:
        InputError: absent, empty, another encoding, a syntax error (with line and column), or not an object.
    """
    try:
        size = os.path.getsize(file)
        if size > LARGE_JSON:
            log.info("reading %s (%d MB)", file, size // 1_000_000)
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
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        kind = "UTF-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "no UTF-8"
        raise InputError(f"{file}: the text is {kind} (byte {e.start}); save it as UTF-8") from e
    del raw  # a large file is not held twice while it is parsed

    def without(entry: dict) -> dict:
        for key in leave_out:
            entry.pop(key, None)
        return entry

    try:
        with collector_paused():
            content = json.loads(text, object_hook=without if leave_out else None)
    except json.JSONDecodeError as e:
        cut = " (the file ends too early: cut?)" if e.pos >= len(e.doc.rstrip()) - 1 else ""
        raise InputError(f"{file}: no JSON at line {e.lineno} column {e.colno}: {e.msg}{cut}") from e
    except (RecursionError, ValueError) as e:
        raise InputError(f"{file}: no usable JSON: {e}") from e
    if not isinstance(content, dict):
        hint = " (detection results?)" if isinstance(content, list) else ""
        raise InputError(f"{file}: not a COCO data set: the top level is a {type(content).__name__}{hint}")
    return content
