# SPDX-License-Identifier: Apache-2.0
"""What a time was measured on and with; no name of a machine or of a folder."""

from __future__ import annotations

import os
import resource
from typing import Any

import torch

from detectron_libra.benchmarks.floor import Machine, last_level_cache
from detectron_libra.benchmarks.peer import torchvision
from detectron_libra.machine import facts
from detectron_libra.ops import backend


def page_faults() -> int:
    """Of this process so far: pages that the system had to map when they were touched."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_minflt + usage.ru_majflt


def environment(device: str, machine: Machine, *, allocator: str) -> dict[str, Any]:
    """JSON object; rates in bytes and operations per second.

    Args:
        device: "cpu" or "cuda".
        machine: measured in this run.
        allocator: what was done to the process before it computed anything.
    """
    return {
        **facts(device),
        "last_level_cache_bytes": last_level_cache(),
        "threads": torch.get_num_threads(),
        "instruction_set": _instruction_set(),
        "allocator": allocator,
        "operators": backend.describe(),
        "peer": torchvision()[1],
        "copy_bytes_per_s": machine.copy,
        "copy_in_cache_bytes_per_s": machine.copy_in_cache,
        "flops_per_s": machine.flops,
    }


def _instruction_set() -> str:
    """The widest that the kernels may take, as csrc/common/simd.h chooses it."""
    found = torch.backends.cpu.get_cpu_capability()
    limit = os.environ.get("LIBRA_SIMD")
    return f"{found}, LIBRA_SIMD={limit}" if limit else found
