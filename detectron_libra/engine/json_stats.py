# SPDX-License-Identifier: Apache-2.0
"""Detectron's ``json_stats`` lines, which its users' scripts read: written as Detectron does, read in all its forms.

Source: Detectron's utils/logging.py and utils/training_stats.py; logs of 2018 have numbers where later ones have texts.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from detectron_libra.errors import InputError

log = logging.getLogger(__name__)

MARK = "json_stats: "
_DURATION = re.compile(r"(?:(-?\d+) days?, )?(\d+):(\d\d):(\d\d)")
_JSON = json.JSONDecoder()


def json_stats(stats: Mapping[str, Any]) -> str:
    """A line: floats are texts with six decimals, keys are sorted."""
    texts = {name: f"{v:.6f}" if isinstance(v, float) else v for name, v in stats.items()}
    return MARK + json.dumps(texts, sort_keys=True)


def read_json_stats(source: str | os.PathLike | Iterable[str]) -> list[dict[str, Any]]:
    """The numbers of every ``json_stats`` line of a training log, of ours or of Detectron.

    Args:
        source: path of the log, or its lines. Text before ``json_stats:`` and other lines play no part.

    Returns:
        A dict per line, in their order: floats whether the log has them as numbers or as texts, NaN and infinity
        included; whole numbers as int; ``eta`` in seconds; anything else as it is. A line that is cut off is left out.

    Raises:
        InputError: the file cannot be read.
    """
    is_path = isinstance(source, (str, os.PathLike))
    lines = _lines_of(Path(source)) if is_path else source  # type: ignore[arg-type]
    found, cut = [], 0
    for line in lines:
        _, mark, text = line.partition(MARK)
        if not mark:
            continue
        try:
            values, _ = _JSON.raw_decode(text.strip())
        except ValueError:
            values = None
        if isinstance(values, dict):
            found.append({name: _value(name, value) for name, value in values.items()})
        else:
            cut += 1
    if cut:
        log.warning("%d json_stats lines are cut off and left out", cut)
    return found


def _lines_of(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as e:
        raise InputError(f"{file}: the log cannot be read: {e.strerror}") from e


def _value(name: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    duration = _DURATION.fullmatch(value) if name == "eta" else None
    if duration:
        days, hours, minutes, seconds = (int(part or 0) for part in duration.groups())
        return ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    try:
        return float(value)
    except ValueError:
        return value
