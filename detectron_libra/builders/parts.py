# SPDX-License-Identifier: Apache-2.0
"""The parts of an ablation: what each one switches in which detector, and which combinations a mode trains."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from detectron_libra.config import Config, with_values
from detectron_libra.config.decode import nearest
from detectron_libra.config.fields import values_of
from detectron_libra.errors import UsageError

RETINANET, RCNN, PROPOSALS = "RetinaNet", "R-CNN", "proposal network"
#: single: baseline, each part alone, all; cumulative: one part after another; full: every combination.
MODES = ("single", "cumulative", "full")
BASELINE = "baseline"


@dataclass(frozen=True)
class Part:
    """What a part is in one kind of detector.

    Attributes:
        switches: keys, True in a run that has the part and False in one that does not.
        needs: values in a run that has the part, of keys that the configuration leaves alone.
    """

    switches: tuple[str, ...]
    needs: Mapping[str, Any] = field(default_factory=dict)


_PYRAMID = Part(("LIBRA.PYRAMID.ON",))
#: Name of a part -> what it is in each kind of detector that can have it. The values for RetinaNet are the beta of its
#: own smooth L1 loss, as in the published Libra RetinaNet, and a number of negatives, which the paper does not give.
PARTS: dict[str, dict[str, Part]] = {
    "sampling": {
        RETINANET: Part(("LIBRA.IOU_SAMPLING.ON",), {"LIBRA.IOU_SAMPLING.NEGATIVES_PER_IM": 1000}),
        RCNN: Part(("LIBRA.IOU_SAMPLING.ON", "LIBRA.INSTANCE_SAMPLING.ON")),
    },
    "pyramid": {RETINANET: _PYRAMID, RCNN: _PYRAMID},
    "loss": {
        RETINANET: Part(("LIBRA.BALANCED_L1.ON",), {"LIBRA.BALANCED_L1.BETA": 0.11}),
        RCNN: Part(("LIBRA.BALANCED_L1.ON",)),
    },
}
#: Parts that are a number: name -> key. In the baseline it is that of the configuration.
NUMBERS = {"weights": "LOSS.WEIGHTS.BBOX"}

#: The parts of a run, such as ("sampling", "weights=0.5"); the baseline has none.
Variant = tuple[str, ...]


def parse_parts(text: str, cfg: Config) -> list[list[str]]:
    """What ``--parts`` names.

    Args:
        text: parts separated by commas; ``weights=0.25:0.5`` is one with several values.
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
    names = [word.partition("=")[0] for word in words]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"--parts: {name} is named twice; write weights=0.25:0.5 for several values")
    return [_labels(word, cfg) for word in words]


def variants(parts: Sequence[Sequence[str]], mode: str) -> list[Variant]:
    """The combinations of parts that a mode trains, the baseline first; a part with several values stands in each.

    Args:
        parts: as ``parse_parts`` gives them.
        mode: one of MODES.
    """
    found = [(), *_combinations(parts, mode)]
    return list(dict.fromkeys(found))


def name_of(variant: Variant) -> str:
    """``sampling+pyramid``, or ``baseline``; names a folder."""
    return "+".join(variant) or BASELINE


def place_of(variant: Sequence[str]) -> tuple:
    """For sorting: few parts first, in the order of PARTS, then the numbers by their values."""
    return len(variant), [_order(label) for label in variant]


def config_of(cfg: Config, parts: Sequence[Sequence[str]], variant: Variant) -> Config:
    """The configuration with the parts of a variant on, and the other ones that are named off.

    Raises:
        UsageError: the detector cannot have a part.
    """
    values: dict[str, Any] = {}
    for label in (label for labels in parts for label in labels):
        name, _, number = label.partition("=")
        if name in NUMBERS:
            values |= {NUMBERS[name]: float(number)} if label in variant else {}
            continue
        part = PARTS[name][kind_of(cfg)]
        values |= dict.fromkeys(part.switches, label in variant)
        if label in variant:
            values |= {key: value for key, value in part.needs.items() if key not in cfg.origins}
    try:
        return with_values(cfg, values, f"--parts {name_of(variant)}")
    except UsageError as e:
        raise UsageError("; ".join(str(e).splitlines())) from e


def kind_of(cfg: Config) -> str:
    """The kind of detector, as PARTS has it."""
    if cfg.RETINANET.RETINANET_ON:
        return RETINANET
    return PROPOSALS if cfg.MODEL.RPN_ONLY else RCNN


def _combinations(parts: Sequence[Sequence[str]], mode: str) -> Iterator[Variant]:
    if mode == "single":
        yield from ((label,) for labels in parts for label in labels)
        yield from product(*parts)
    elif mode == "cumulative":
        for count in range(1, len(parts) + 1):
            yield from product(*parts[:count])
    else:
        chosen = product(*(("", *labels) for labels in parts))
        yield from sorted((tuple(filter(None, labels)) for labels in chosen), key=place_of)


def _order(label: str) -> tuple[int, float]:
    name, _, number = label.partition("=")
    places = [*PARTS, *NUMBERS]
    return places.index(name) if name in places else len(places), float(number or 0)


def _labels(word: str, cfg: Config) -> list[str]:
    name, given, values = word.partition("=")
    if name in NUMBERS:
        return _numbers(name, values, cfg)
    if name not in PARTS:
        raise UsageError(
            f"--parts {name}: no such part{nearest(name, [*PARTS, *NUMBERS])}; there are {_known()}"
        )
    if given:
        raise UsageError(f"--parts {word}: {name} is on or off and takes no value; write {name}")
    if kind_of(cfg) not in PARTS[name]:
        raise UsageError(
            f"--parts {name}: a {kind_of(cfg)} cannot have it; it is for {' and '.join(PARTS[name])}"
        )
    return [name]


def _numbers(name: str, text: str, cfg: Config) -> list[str]:
    present = values_of(cfg)[NUMBERS[name]]
    values = [_number(name, value) for value in text.split(":")]
    others = [value for value in dict.fromkeys(values) if value != present]
    if not others:
        raise UsageError(
            f"--parts {name}={text}: {NUMBERS[name]} is {present} already, so there is nothing to compare; name "
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


def _known() -> str:
    return ", ".join([*PARTS, *(f"{name}=NUMBER:NUMBER" for name in NUMBERS)])
