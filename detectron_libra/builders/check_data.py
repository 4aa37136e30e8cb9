# SPDX-License-Identifier: Apache-2.0
"""What `tools/check_data.py` tells: everything found about data sets, as lines or for programs."""

import json
from collections.abc import Sequence
from pathlib import Path

from detectron_libra.builders.sets import Surveyed
from detectron_libra.data.coco import Dataset
from detectron_libra.data.faults import Faults
from detectron_libra.data.json_file import read_json
from detectron_libra.data.repair import repair
from detectron_libra.errors import InputError, RunError, UsageError
from detectron_libra.files import atomic_write


def as_lines(found: Sequence[Surveyed]) -> list[str]:
    """What there is of what, and every kind of fault with its number and its first places."""
    lines = []
    for one in found:
        if one.dataset is None:
            lines.append(f"{one.name}: {one.reason}")
            continue
        counts = count_boxes(one.dataset)
        listed = ", ".join(f"{name} {count}" for name, count in counts.items())
        lines.append(
            f"{one.dataset.annotation_file}: {len(one.dataset.records)} images, {sum(counts.values())} boxes: {listed}"
        )
        faults = faults_of(one.dataset)
        if faults.dropped:
            lines.append(f"  dropped {faults.dropped} of {faults.annotations} annotations")
        lines += [
            f"  {kind.level} {kind.count} x {kind.text}: {kind.places_named()}"
            for kind in faults.kinds.values()
        ]
    return lines


def as_json(found: Sequence[Surveyed]) -> str:
    """The same as one JSON object: ``ok``, and under ``sets`` the file, counts and faults of each."""
    sets = []
    for one in found:
        values: dict = {"name": one.name, "phase": one.phase}
        if one.dataset is None:
            values["faults"] = [{"level": "error", "text": str(one.reason), "count": 1, "first": []}]
        else:
            faults = faults_of(one.dataset)
            values |= {
                "annotations": one.dataset.annotation_file,
                "images": len(one.dataset.records),
                "boxes": count_boxes(one.dataset),
                "dropped": faults.dropped,
                "faults": [kind.as_dict() for kind in faults.kinds.values()],
            }
        sets.append(values)
    return json.dumps({"ok": not errors(found), "sets": sets}, indent=2, ensure_ascii=False)


def errors(found: Sequence[Surveyed]) -> list[str]:
    """A line per set that cannot be used."""
    told = [one.reason if one.dataset is None else faults_of(one.dataset).error() for one in found]
    return [str(error) for error in told if error is not None]


def faults_of(dataset: Dataset) -> Faults:
    """What was found about a data set."""
    return dataset.problems or Faults(dataset.annotation_file)


def count_boxes(dataset: Dataset) -> dict[str, int]:
    """Boxes by class, crowds left out."""
    counts = dict.fromkeys(dataset.class_names, 0)
    for record in dataset.records:
        for c in record.classes[~record.crowd].tolist():
            counts[dataset.class_names[c - 1]] += 1
    return counts


def write_repaired(
    images: str, annotations: str, out: str, *, extent: float, level: str, workers: int
) -> list[str]:
    """Write a repaired copy of an annotation file, whole or not at all.

    Args:
        out: where to; never the file itself.
        extent: of the geometry; level, workers: see ``survey.survey``.

    Returns:
        What was changed, a line per kind.

    Raises:
        UsageError: ``out`` is the file itself. InputError: the file cannot be read or repaired. RunError: the copy
        cannot be written.
    """
    content = read_json(annotations)
    target = Path(out)
    if target.exists() and target.samefile(annotations):
        raise UsageError(f"--fix {out}: is the annotation file itself; name another one")
    changes = repair(content, images, annotations, extent=extent, level=level, workers=workers)
    try:
        text = json.dumps(content, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # half a surrogate pair, which only an escape can write
        text = json.dumps(content).encode()
    try:
        atomic_write(target, text)
    except OSError as e:
        raise RunError(f"{out}: cannot be written ({e.strerror})") from e
    lines = [f"  {kind.count} x {kind.text}: {kind.names()}" for kind in changes.kinds.values()]
    return [f"{out}: repaired copy of {annotations}{'' if lines else '; nothing was to be changed'}", *lines]


def require_sound(found: Sequence[Surveyed]) -> None:
    """Raises InputError with a line per set that cannot be used."""
    lines = errors(found)
    if lines:
        raise InputError(*lines)
