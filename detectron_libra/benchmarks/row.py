# SPDX-License-Identifier: Apache-2.0
"""One row of the result: what was measured of one pass of one case."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Row:
    """Seconds are medians of one call; None where there is no such contender. `pass_` is "pass" in JSON.

    Attributes:
        floor_s: least seconds for `bytes` and `flops` on this machine.
        bytes: that must move.
        peak_extra_bytes: most memory beyond what was there before the call.
        spread: of ours, the distance of its quartiles as a share of the median.
        ours_cold_s: CUDA, ours with nothing in the last-level cache.
        notes: why a time is missing, or what to think of it.
    """

    op: str
    case: str
    layout: str
    dtype: str
    device: str
    threads: int
    pass_: str
    ours_s: float
    eager_s: float | None
    compile_s: float | None
    peer: str | None
    peer_s: float | None
    floor_s: float
    bytes: int
    peak_extra_bytes: int | None
    spread: float
    flops: int = 0
    ours_cold_s: float | None = None
    eager_peak_extra_bytes: int | None = None
    page_faults: int | None = None
    notes: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The names of the published format."""
        values = asdict(self)
        return {("pass" if key == "pass_" else key): value for key, value in values.items()}
