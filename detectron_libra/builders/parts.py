# SPDX-License-Identifier: Apache-2.0
"""The parts of an ablation: what each one switches in which detector, and which combinations a mode trains."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from detectron_libra.config import KEYS, Config, with_values
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
#: Parts that are a number: name -> key. In the baseline it is that of the configuration, as for a part that is a key.
NUMBERS = {"weights": "LOSS.WEIGHTS.BBOX"}

#: The parts of a run, such as ("sampling", "weights=0.5", "TRAIN.PRECISION=bf16"); the baseline has none.
Variant = tuple[str, ...]


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
    """For sorting: few parts first, in the order of PARTS, then the numbers by their values, then keys by name."""
    return len(variant), [_order(label) for label in variant]


def config_of(cfg: Config, parts: Sequence[Sequence[str]], variant: Variant) -> Config:
    """The configuration with the parts of a variant on, and the other ones that are named off.

    Raises:
        UsageError: the detector cannot have a part.
    """
    values: dict[str, Any] = {}
    for label in (label for labels in parts for label in labels):
        name, _, value = label.partition("=")
        key = key_of(name)
        if key is not None:
            values |= {key: value} if label in variant else {}
            continue
        part = PARTS[name][kind_of(cfg)]
        values |= dict.fromkeys(part.switches, label in variant)
        if label in variant:
            values |= {key: value for key, value in part.needs.items() if key not in cfg.origins}
    try:
        return with_values(cfg, values, f"--parts {name_of(variant)}")
    except UsageError as e:
        raise UsageError("; ".join(str(e).splitlines())) from e


def key_of(name: str) -> str | None:
    """The key of a part that is a value; None for one that is on or off."""
    return NUMBERS.get(name, name if name in KEYS else None)


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


def _order(label: str) -> tuple[int, float, str]:
    name, _, value = label.partition("=")
    places = [*PARTS, *NUMBERS]
    if name in places:
        return places.index(name), float(value or 0), ""
    return len(places), 0.0, label
