# SPDX-License-Identifier: Apache-2.0
"""What a time was measured on and with; no name of a machine or of a folder."""

from __future__ import annotations

import os
import platform
import resource
from datetime import datetime, timezone
from typing import Any

import torch

from detectron_libra.benchmarks.floor import Machine, last_level_cache
from detectron_libra.benchmarks.peer import torchvision
from detectron_libra.machine import commit, cores, cpu_name, gpu
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
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": commit(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": cpu_name(),
        "cores": cores(),
        "last_level_cache_bytes": last_level_cache(),
        "load_average": round(os.getloadavg()[0], 2),
        "threads": torch.get_num_threads(),
        "instruction_set": _instruction_set(),
        "allocator": allocator,
        "operators": backend.describe(),
        "peer": torchvision()[1],
        "device": device,
        **(gpu() if device == "cuda" else {}),
        "copy_bytes_per_s": machine.copy,
        "copy_in_cache_bytes_per_s": machine.copy_in_cache,
        "flops_per_s": machine.flops,
    }


def _instruction_set() -> str:
    """The widest that the kernels may take, as csrc/common/simd.h chooses it."""
    found = torch.backends.cpu.get_cpu_capability()
    limit = os.environ.get("LIBRA_SIMD")
    return f"{found}, LIBRA_SIMD={limit}" if limit else found
