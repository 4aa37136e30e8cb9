# SPDX-License-Identifier: Apache-2.0
"""What ``--parts`` of an ablation says: names of parts, numbers, and any other key with the values to compare."""

import math
from collections.abc import Iterator

from detectron_libra.builders.parts import NUMBERS, PARTS, key_of, kind_of
from detectron_libra.config import KEYS, Config
from detectron_libra.config.decode import coerce, nearest
from detectron_libra.config.fields import values_of
from detectron_libra.errors import UsageError

#: Keys that an ablation sets itself, or that its report says once for all runs.
SHARED = (
    "RNG_SEED",
    "OUTPUT_DIR",
    "DATASETS",
    "MODEL.RPN_ONLY",
    "SOLVER.MAX_ITER",
    "TRAIN.IMS_PER_BATCH",
    "TRAIN.SCALES",
    "TEST.DATASETS",
    "TEST.CONCEPT_THRESH",
    "TEST.BOX_IOU_THRESH",
)


def parse_parts(text: str, cfg: Config) -> list[list[str]]:
    """What ``--parts`` names.

    Args:
        text: parts separated by commas; ``weights=0.25:0.5`` and ``TRAIN.PRECISION=fp32:bf16`` have several values.
        cfg: the configuration; a value that it has already is the baseline and is left out.

    Returns:
        For each part its label, such as ``["sampling"]``, or labels, such as ``["weights=0.25", "weights=0.5"]``.

    Raises:
        UsageError: no part of that name, one that the detector cannot have, a value that cannot be, or nothing to
        compare.
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise UsageError(f"--parts: none named; name some of {_known()}, separated by commas")
    found = [_labels(word, cfg) for word in words]
    touched: dict[str, str] = {}
    for word in words:
        name = word.partition("=")[0]
        for key in _keys(name, cfg):
            other = touched.setdefault(key, word)
            if other is not word:
                raise _both(name, other.partition("=")[0], key)
    return found


def _both(name: str, other: str, key: str) -> UsageError:
    if name == other:
        return UsageError(f"--parts: {name} is named twice; write weights=0.25:0.5 for several values")
    return UsageError(f"--parts: {other} and {name} both set {key}; name one of them")


def _keys(name: str, cfg: Config) -> Iterator[str]:
    """What a part changes."""
    key = key_of(name)
    if key is not None:
        yield key
        return
    part = PARTS[name][kind_of(cfg)]
    yield from (*part.switches, *part.needs)


def _labels(word: str, cfg: Config) -> list[str]:
    name, given, text = word.partition("=")
    key = key_of(name)
    if key is not None:
        return _values(name, key, text, cfg)
    if name not in PARTS:
        raise UsageError(
            f"--parts {name}: no such part{nearest(name, [*PARTS, *NUMBERS, *KEYS])}; there are {_known()}"
        )
    if given:
        raise UsageError(f"--parts {word}: {name} is on or off and takes no value; write {name}")
    if kind_of(cfg) not in PARTS[name]:
        raise UsageError(
            f"--parts {name}: a {kind_of(cfg)} cannot have it; it is for {' and '.join(PARTS[name])}"
        )
    return [name]


def _values(name: str, key: str, text: str, cfg: Config) -> list[str]:
    """A label for each value that the configuration does not have."""
    if key in SHARED:
        raise UsageError(f"--parts {name}: all runs of an ablation have the same {key}; name another key")
    present = values_of(cfg)[key]
    read = _number if name in NUMBERS else _value
    values = [read(name, value) for value in text.split(":")]
    others = [value for value in dict.fromkeys(values) if value != present]
    if not others:
        raise UsageError(
            f"--parts {name}={text}: {key} is {present} already, so there is nothing to compare; name "
            "another value"
        )
    return [f"{name}={value}" for value in others]


def _number(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise UsageError(f"--parts {name}: {text!r} is no number from 0 on; write {name}=0.25:0.5")
    return value


def _value(name: str, text: str) -> bool | int | float | str:
    """A single value, whose text is part of a folder's name."""
    key = KEYS[name]
    if key.kind not in (bool, int, float, str):
        raise UsageError(f"--parts {name}: its value is a {key.kind.__name__}, and a part has a single value")
    if not text or "/" in text:
        raise UsageError(
            f"--parts {name}: {text!r} is no value of a part, which names a folder; write {name}=VALUE:VALUE"
        )
    try:
        return coerce(text, key)
    except ValueError as e:
        raise UsageError(f"--parts {name}: {e}") from None


def _known() -> str:
    return ", ".join([*PARTS, *(f"{name}=NUMBER:NUMBER" for name in NUMBERS), "any KEY=VALUE:VALUE"])
