# SPDX-License-Identifier: Apache-2.0
"""Prints what this installation is made of: versions, backend of the operators, compilers, devices."""

import os
import platform
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = (
    "numpy",
    "pycocotools",
    "PyYAML",
    "Pillow",
    "tqdm",
    "safetensors",
    "pybind11",
    "hotcoco",
    "ninja",
    "pytest",
    "ruff",
)


def main() -> int:
    print(f"python      {platform.python_version()} ({sys.executable})")
    try:
        import torch

        import detectron_libra
        from detectron_libra.ops import backend
    except ImportError as error:
        print(f"cannot import {error.name}: {error}; `make build` sets everything up", file=sys.stderr)
        return 1
    print(f"torch       {torch.__version__} (CUDA {torch.version.cuda or 'none'})")
    print(
        f"package     detectron_libra {detectron_libra.__version__} ({Path(detectron_libra.__file__).parent})"
    )
    print(backend.describe())
    summary = Path(__file__).resolve().parent.parent / "build" / "summary.txt"
    if summary.exists():
        print(f"last build  {summary.read_text().strip()}")
    print(f"compilers   {first_line('g++')}; {first_line('nvcc', -2)}")
    threads = os.getenv("OMP_NUM_THREADS", "unset")
    print(f"threads     torch {torch.get_num_threads()} of {os.cpu_count()} CPUs (OMP_NUM_THREADS {threads})")
    for index in range(torch.cuda.device_count()):
        name, (major, minor) = torch.cuda.get_device_name(index), torch.cuda.get_device_capability(index)
        print(f"device      cuda:{index} {name}, sm_{major}{minor}")
    print("packages    " + ", ".join(f"{name} {installed(name)}" for name in PACKAGES))
    return 0


def first_line(program: str, line: int = 0) -> str:
    """The line of `program --version` that names the version."""
    if shutil.which(program) is None:
        return f"no {program}"
    text = (
        subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
        .stdout.strip()
        .splitlines()
    )
    return text[max(line, -len(text))] if text else program


def installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


if __name__ == "__main__":
    sys.exit(main())
