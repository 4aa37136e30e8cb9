# SPDX-License-Identifier: Apache-2.0
"""Named ranges in the profile at the borders of parts, put around functions from outside for as long as needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any, NamedTuple

from torch.profiler import record_function

#: Begins the name of every range of ours.
PREFIX = "part: "
STEP = f"{PREFIX}step"
#: Part of a step -> the share that it counts for.
SHARE_OF = {
    "data": "data",
    "backbone": "backbone",
    "fpn": "fpn",
    "head": "heads",
    "rpn_head": "heads",
    "roi_align": "heads",
    "box_head": "heads",
    "matching": "matching",
    "losses": "losses",
    "optimizer": "optimizer",
    "proposals": "postprocess",
    "postprocess": "postprocess",
    "other": "other",
}
SHARES = tuple(dict.fromkeys(SHARE_OF.values()))


class Place(NamedTuple):
    """A function that belongs to a part: an attribute of a module of Python, or a method of one object."""

    owner: Any
    name: str
    part: str


@contextmanager
def in_ranges(places: Sequence[Place]) -> Iterator[None]:
    """Every call of these functions is a range of the profile while the block runs; the innermost one counts."""
    with ExitStack() as stack:
        for place in places:
            assert place.part in SHARE_OF
            stack.enter_context(_replaced(place))
        yield


def named(part: str) -> record_function:
    """A range of the profile."""
    return record_function(PREFIX + part)


@contextmanager
def _replaced(place: Place) -> Iterator[None]:
    own = vars(place.owner)
    was_own, before = place.name in own, getattr(place.owner, place.name)
    setattr(place.owner, place.name, _ranged(before, place.part))
    try:
        yield
    finally:
        if was_own:
            setattr(place.owner, place.name, before)
        else:  # a method: the class has it
            delattr(place.owner, place.name)


def _ranged(function: Callable[..., Any], part: str) -> Callable[..., Any]:
    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with named(part):
            return function(*args, **kwargs)

    return call
