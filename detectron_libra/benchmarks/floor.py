# SPDX-License-Identifier: Apache-2.0
"""What the machine can do at most: bytes copied per second and arithmetic per second, measured in this run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from detectron_libra.benchmarks.measure import Times, in_turns

#: Working set of the figure for data that stays in a cache.
IN_CACHE_BYTES = 256 * 2**10
MATMUL_SIDE = {"cpu": 768, "cuda": 8192}


@dataclass(frozen=True)
class Machine:
    """Rates of one device.

    Attributes:
        copy: bytes read plus bytes written per second, beyond the last-level cache. Best sample: a floor is
            what the machine can do, not what it does on average.
        copy_in_cache: the same for a working set of IN_CACHE_BYTES, on one core's cache.
        flops: float32 operations per second of a matrix product, a multiply-add as two.
    """

    copy: float
    copy_in_cache: float
    flops: float

    def floor(self, size: int, flops: int = 0) -> float:
        """Least seconds for so many bytes and operations, whichever takes longer."""
        return max(size / self.copy, flops / self.flops)


def measure_machine(device: str, *, quick: bool = False) -> Machine:
    """Measures it; a second or two."""
    large = 16 * 2**20 if quick else _beyond_cache(device)
    side = 128 if quick else MATMUL_SIDE[device]
    return Machine(_copy(device, large), _copy(device, IN_CACHE_BYTES), _matmul(device, side))


def last_level_cache() -> int:
    """Bytes of the CPU's largest cache, 0 where the system does not say."""
    sizes = [0]
    for file in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = file.read_text().strip()
        factor = {"K": 2**10, "M": 2**20}.get(text[-1:], 1)
        digits = text.rstrip("KM")
        sizes.append(int(digits) * factor if digits.isdigit() else 0)
    return max(sizes)


def _beyond_cache(device: str) -> int:
    """Bytes of the source: four times the cache, within what a small machine can spare."""
    if device == "cuda":
        return 2**30
    return min(max(4 * last_level_cache(), 128 * 2**20), 512 * 2**20)


def _copy(device: str, size: int) -> float:
    source = torch.ones(size // 4, device=device)
    target = torch.zeros_like(source)
    return 2 * size / _best(lambda: target.copy_(source), device)


def _matmul(device: str, side: int) -> float:
    a, b = (torch.randn(side, side, device=device) for _ in range(2))
    out = torch.empty_like(a)
    return 2 * side**3 / _best(lambda: torch.mm(a, b, out=out), device)


def _best(run, device: str) -> float:
    times: Times = in_turns({"it": run}, device)["it"]
    return min(times.samples)
