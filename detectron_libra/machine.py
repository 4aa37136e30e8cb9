# SPDX-License-Identifier: Apache-2.0
"""What a result was computed on and with; no name of a machine or of a folder."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]


def commit() -> str | None:
    """Short name of the commit that runs, with a mark where files differ from it; None outside a checkout."""
    # Without this, a package that is installed inside of another checkout would tell of that one.
    name = first_line(["git", "rev-parse", "--short", "HEAD"]) if (ROOT / ".git").exists() else None
    if name is None:
        return None
    return name + ("-dirty" if first_line(["git", "status", "--porcelain", "-uno"]) else "")


def cpu_name() -> str:
    """As the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def cores() -> int | None:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def available_memory() -> int | None:
    """Bytes that programs can take without swapping; None where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError, IndexError):
        return None


def facts(device: str) -> dict[str, Any]:
    """When, on what and with which versions something is measured, as a JSON object; ``device``: "cpu" or "cuda"."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": commit(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": cpu_name(),
        "cores": cores(),
        "load_average": round(os.getloadavg()[0], 2),
        "device": device,
        **(gpu() if device == "cuda" else {}),
    }


def gpu() -> dict[str, Any]:
    """The first GPU, its driver and CUDA, as a JSON object."""
    properties = torch.cuda.get_device_properties(0)
    return {
        "cuda_device": properties.name,
        "cuda_capability": f"{properties.major}.{properties.minor}",
        "cuda_memory_bytes": properties.total_memory,
        "cuda": torch.version.cuda,
        "driver": first_line(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]),
    }


def first_line(command: list[str]) -> str | None:
    """What a command prints first, run in the folder of the package; None where it fails or prints nothing."""
    if shutil.which(command[0]) is None:
        return None
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    lines = done.stdout.strip().splitlines()
    return lines[0] if done.returncode == 0 and lines else None
