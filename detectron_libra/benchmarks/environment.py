# SPDX-License-Identifier: Apache-2.0
"""What a time was measured on and with; no name of a machine or of a folder."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import subprocess
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from detectron_libra.benchmarks.floor import Machine, last_level_cache
from detectron_libra.benchmarks.peer import torchvision
from detectron_libra.ops import backend

ROOT = Path(__file__).resolve().parents[2]


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
        "commit": _commit(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "last_level_cache_bytes": last_level_cache(),
        "load_average": round(os.getloadavg()[0], 2),
        "threads": torch.get_num_threads(),
        "instruction_set": _instruction_set(),
        "allocator": allocator,
        "operators": backend.describe(),
        "peer": torchvision()[1],
        "device": device,
        **(_cuda() if device == "cuda" else {}),
        "copy_bytes_per_s": machine.copy,
        "copy_in_cache_bytes_per_s": machine.copy_in_cache,
        "flops_per_s": machine.flops,
    }


def _cuda() -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(0)
    return {
        "cuda_device": properties.name,
        "cuda_capability": f"{properties.major}.{properties.minor}",
        "cuda_memory_bytes": properties.total_memory,
        "cuda": torch.version.cuda,
        "driver": _line(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]),
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _instruction_set() -> str:
    """The widest that the kernels may take, as csrc/common/simd.h chooses it."""
    found = torch.backends.cpu.get_cpu_capability()
    limit = os.environ.get("LIBRA_SIMD")
    return f"{found}, LIBRA_SIMD={limit}" if limit else found


def _commit() -> str | None:
    """Short name of the commit that runs, with a mark where files differ from it; None outside a checkout."""
    commit = _line(["git", "rev-parse", "--short", "HEAD"])
    if commit is None:
        return None
    return commit + ("-dirty" if _line(["git", "status", "--porcelain", "-uno"]) else "")


def _line(command: list[str]) -> str | None:
    if shutil.which(command[0]) is None:
        return None
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    lines = done.stdout.strip().splitlines()
    return lines[0] if done.returncode == 0 and lines else None
