# SPDX-License-Identifier: Apache-2.0
"""What is measured, as data: who takes part, and on what."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

from detectron_libra.benchmarks.peer import torchvision
from detectron_libra.config import Config

OURS, REFERENCE, TORCHVISION, TUNED = "ours", "reference", "torchvision", "torchvision_tuned"
MODES, PRECISIONS = ("train", "test"), ("fp32", "bf16")
#: Both sides pad images to multiples of it: what a backbone of stride 32 needs, and torchvision's own choice.
PAD_TO = 32
#: Width over height of an image where MAX_SIZE leaves room: most photographs of COCO are 640x480.
USUAL_RATIO = 4 / 3


class Size(NamedTuple):
    """Of an image, in pixels."""

    height: int
    width: int

    def padded(self, multiple: int) -> Size:
        """The next size whose sides are multiples."""
        return Size(*(-(-side // multiple) * multiple for side in self))

    def __str__(self) -> str:
        return f"{self.height}x{self.width}"


@dataclass(frozen=True)
class Contender:
    """One line of the result.

    Attributes:
        impl: OURS, REFERENCE (ours without the kernels), TORCHVISION, TUNED (with our settings of the process), or the
            other values of ours under them.
        mode: "train" or "test".
        precision: "fp32" or "bf16".
        loader: images of the configuration's own data sets through its loader, not generated ones.
    """

    impl: str
    mode: str
    precision: str
    loader: bool = False

    @property
    def is_peer(self) -> bool:
        """Not code of ours."""
        return self.impl in (TORCHVISION, TUNED)

    @property
    def title(self) -> str:
        """For messages."""
        return f"{self.impl} {self.mode} {self.precision}" + (" with its loader" if self.loader else "")


@dataclass(frozen=True)
class Ask:
    """What the user asks for.

    Attributes:
        cfg: with device, threads and thresholds as they are to be.
        peer: TORCHVISION, or "" for no comparison; tuned: once more with our settings of the process.
        versus: other values as the user wrote them, and the configuration with them.
        modes, precisions: of MODES and PRECISIONS.
        size: of generated images; None: as the scales of the configuration.
        boxes: per generated image.
        pad_to: see PAD_TO.
        loader: measure with the configuration's own data too.
        warm_ups, rounds: steps before, and turns that count; rounds 0: as many as take about a minute.
    """

    cfg: Config
    peer: str = ""
    tuned: bool = False
    versus: tuple[tuple[str, Config], ...] = ()
    modes: tuple[str, ...] = MODES
    precisions: tuple[str, ...] = ("fp32",)
    size: Size | None = None
    boxes: int = 8
    pad_to: int = PAD_TO
    loader: bool = False
    warm_ups: int = 8
    rounds: int = 0


@dataclass(frozen=True)
class Order:
    """What one worker process is told: its contender, and on what it works."""

    cfg: Config
    contender: Contender
    size: Size
    batch: int
    boxes: int
    pad_to: int


def contenders(ask: Ask, mode: str) -> tuple[list[Contender], str]:
    """Those that take turns in a mode, and why the peer is another one than was asked for, or ""."""
    names = (OURS, *(text for text, _ in ask.versus))
    found = [Contender(name, mode, precision) for name, precision in product(names, ask.precisions)]
    if not ask.peer:
        return found, ""
    loaded, text = torchvision()
    names = (TORCHVISION, TUNED)[: 1 + ask.tuned] if loaded else (REFERENCE,)
    found += [Contender(name, mode, precision) for name, precision in product(names, ask.precisions)]
    if loaded:
        return found, ""
    return found, f"{text}: compared with the project's own reference backend (OPS.BACKEND reference) instead"


def orders(ask: Ask, who: list[Contender], mode: str) -> list[Order]:
    """The same work for each of them."""
    keys: Any = ask.cfg.TRAIN if mode == "train" else ask.cfg.TEST
    size = ask.size or usual_size(ask.cfg, mode)
    other = dict(ask.versus)
    return [
        Order(other.get(one.impl, ask.cfg), one, size, keys.IMS_PER_BATCH, ask.boxes, ask.pad_to)
        for one in who
    ]


def usual_size(cfg: Config, mode: str) -> Size:
    """Of an image of the usual shape at the largest scale of the configuration."""
    side = max(cfg.TRAIN.SCALES) if mode == "train" else cfg.TEST.SCALE
    longest = cfg.TRAIN.MAX_SIZE if mode == "train" else cfg.TEST.MAX_SIZE
    return Size(min(side, longest), min(longest, round(side * USUAL_RATIO)))
