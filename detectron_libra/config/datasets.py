# SPDX-License-Identifier: Apache-2.0
"""Data sets declared in the configuration: what the values of DATASETS may be.

``{name: {IM_DIR: folder, ANN_FN: file}}`` is a COCO-format set, ``{name: {VOC_DIR: folder, SPLIT: name}}`` one in
PASCAL VOC's layout, ``{name: {SHAPES: {...}, DIR: folder}}`` a generated one.
"""

from collections.abc import Callable
from typing import Any

from detectron_libra.config.decode import coerce, decode, nearest, shorten
from detectron_libra.config.fields import Key, flatten
from detectron_libra.config.schema import Shapes

DECLARED = {
    "IM_DIR": Key("", "Folder of the images."),
    "ANN_FN": Key("", "Annotations, a JSON file in COCO format."),
}
VOC = {
    "VOC_DIR": Key("", "Folder that holds Annotations, ImageSets and JPEGImages."),
    "SPLIT": Key("", "List of images: the name of a file of ImageSets/Main."),
}
#: Of a VOC set, besides: before 2010 the measure was another; 0 asks the name of the folder.
VOC_YEAR = {"YEAR": Key(0, "Year of the challenge.", min=0)}
GENERATED = {"DIR": Key("", "Folder that the images are written to.")}
SHAPES = flatten(Shapes)
#: The kinds of entries: the keys that one may have.
KINDS: tuple[dict[str, Key | None], ...] = (
    {**DECLARED},
    {**VOC, **VOC_YEAR},
    {"SHAPES": None, **GENERATED},
)

#: ``fault(where, name, message)`` takes down what is wrong.
Fault = Callable[[str, str, str], None]


def merge(current: dict, raw: Any, where: str, fault: Fault) -> dict:
    """The data sets of ``current`` with those of ``raw`` on top, entry by entry and key by key."""
    sets = _mapping(raw, where, "DATASETS", fault)
    merged = dict(current)
    for name, entry in sets.items():
        at = _where(sets, name, where)
        fields = _mapping(entry, at, f"DATASETS.{name}", fault)
        merged[name] = _merge_entry(merged.get(name, {}), fields, at, f"DATASETS.{name}", fault)
    return merged


def nested(name: str, raw: Any) -> dict:
    """The mapping that ``DATASETS.<set>.ANN_FN`` and a value stand for; names of sets may have dots."""
    head, _, tail = name.removeprefix("DATASETS.").partition(".SHAPES.")
    if tail:
        return {head: {"SHAPES": {tail: raw}}}
    head, _, tail = head.rpartition(".")
    return {head: {tail: raw}} if head else {tail: raw}


def incomplete(sets: dict) -> dict[str, str]:
    """What is missing in which set: name -> message."""
    missing = {}
    for name, entry in sets.items():
        wanted = GENERATED if "SHAPES" in entry else VOC if VOC_YEAR.keys() & entry.keys() else DECLARED
        lacking = [k for k in wanted if not entry.get(k)]
        if lacking:
            example = ", ".join(f"{k}: path" for k in wanted)
            missing[name] = f"{' and '.join(lacking)} missing; write {name}: {{{example}}}"
    return missing


def _mapping(raw: Any, where: str, name: str, fault: Fault) -> dict:
    value = decode(raw)
    if not isinstance(value, dict):
        fault(
            where, name, f"{shorten(value)} is no mapping; write {{name: {{IM_DIR: folder, ANN_FN: file}}}}"
        )
        return {}
    if any(not isinstance(k, str) for k in value):
        value = {str(k): v for k, v in value.items()}
    return value


def _where(mapping: dict, name: str, where: str) -> str:
    return getattr(mapping, "where", {}).get(name, where)


def _merge_entry(current: dict, fields: dict, where: str, name: str, fault: Fault) -> dict:
    kinds = [kind for kind in KINDS if fields.keys() & kind.keys()]
    if len(kinds) > 1:
        first, second = (" and ".join(list(kind)[:2]) for kind in kinds[:2])
        fault(where, name, f"{first} do not go with {second}; keep one pair")
        return current
    known = (
        kinds[0] if kinds else next((k for k in KINDS if current and current.keys() <= k.keys()), KINDS[0])
    )
    entry = dict(current) if current and current.keys() <= known.keys() else _fresh(known)
    for k, raw in fields.items():
        at = _where(fields, k, where)
        if k == "SHAPES":
            shapes = {} if raw is None else _mapping(raw, at, f"{name}.SHAPES", fault)
            entry["SHAPES"] = _set(entry["SHAPES"], shapes, SHAPES, at, f"{name}.SHAPES", fault)
        elif k in known:
            entry = _set(entry, {k: raw}, known, at, name, fault)  # type: ignore[arg-type]
        else:
            fault(at, f"{name}.{k}", f"unknown key{nearest(k, known)}")
    return entry


def _fresh(kind: dict) -> dict:
    """An entry before its own values: those that need not be written are there."""
    if "SHAPES" in kind:
        return {"SHAPES": {k: key.default for k, key in SHAPES.items()}}
    return {k: key.default for k, key in VOC_YEAR.items()} if "YEAR" in kind else {}


def _set(current: dict, fields: dict, known: dict, where: str, name: str, fault: Fault) -> dict:
    merged = dict(current)
    for k, raw in fields.items():
        at = _where(fields, k, where)
        if k not in known:
            fault(at, f"{name}.{k}", f"unknown key{nearest(k, known)}")
            continue
        try:
            merged[k] = coerce(raw, known[k])
        except ValueError as e:
            fault(at, f"{name}.{k}", str(e))
    return merged
