# SPDX-License-Identifier: Apache-2.0
"""Compiles every CUDA kernel for each architecture, prints what ptxas says of it, and fails on a spill.

Needs an nvcc (on PATH or under CUDA_HOME), no GPU, and any torch: every wheel has the stable-ABI headers.
Exit codes: 0 all compiled without a spill; 1 a kernel failed or spills; 2 no nvcc.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch.utils.cpp_extension import include_paths

ROOT = Path(__file__).resolve().parent.parent
ARCHITECTURES = ("80", "90")
TARGET = "-DTORCH_TARGET_VERSION=0x020a000000000000"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--arch", action="append", help="compute capability without a dot (default: 80 and 90)"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="compilers at once")
    parser.add_argument("files", nargs="*", type=Path, help="kernels (default: every csrc/ops/*/*_cuda.cu)")
    args = parser.parse_args()
    nvcc = find_nvcc()
    if nvcc is None:
        print("check_cuda: no nvcc found; install the CUDA toolkit or set CUDA_HOME", file=sys.stderr)
        return 2
    files = args.files or sorted(ROOT.glob("csrc/ops/*/*_cuda.cu"))
    jobs = [(file.resolve(), arch) for file in files for arch in args.arch or ARCHITECTURES]
    with ThreadPoolExecutor(args.jobs) as pool:
        results = list(pool.map(lambda job: compile_one(nvcc, *job), jobs))
    bad = 0
    for (file, arch), (code, text) in zip(jobs, results, strict=True):
        bad += report(file, arch, code, text)
    print(
        f"check_cuda: {len(jobs)} compilations of {len(files)} files, {bad} bad (torch {torch.__version__})"
    )
    return 1 if bad else 0


def find_nvcc() -> str | None:
    """Path of nvcc: CUDA_HOME's, else the one on PATH, else the usual place."""
    home = os.getenv("CUDA_HOME")
    for place in ([f"{home}/bin/nvcc"] if home else []) + ["nvcc", "/usr/local/cuda/bin/nvcc"]:
        found = shutil.which(place)
        if found:
            return found
    return None


def compile_one(nvcc: str, file: Path, arch: str) -> tuple[int, str]:
    """(exit status, compiler's text) of one kernel for one architecture."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            nvcc,
            "-c",
            str(file),
            "-o",
            f"{folder}/kernel.o",
            "-O3",
            "-std=c++20",
            "-DUSE_CUDA",
            TARGET,
        ]
        command += ["-Xptxas", "-v", "-gencode", f"arch=compute_{arch},code=sm_{arch}", f"-I{ROOT / 'csrc'}"]
        command += [f"-I{path}" for path in include_paths()]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def report(file: Path, arch: str, code: int, text: str) -> bool:
    """Prints one line a kernel; returns whether something is wrong."""
    where = f"{file.name} sm_{arch}"
    if code != 0:
        print(f"{where}: nvcc failed\n{text}")
        return True
    spilled = False
    for name, body in re.findall(r"Compiling entry function '(\S+)'.*?\n(.*?Used [^\n]*)", text, re.DOTALL):
        used = re.search(r"Used (\d+) registers", body)
        shared = re.search(r"(\d+) bytes smem", body)
        spill = sum(int(n) for n in re.findall(r"(\d+) bytes spill", body))
        spilled |= spill > 0
        registers, kept = used.group(1) if used else "?", shared.group(1) if shared else 0
        print(f"{where}: {registers} registers, {kept} bytes shared, {spill} spilled: {readable(name)}")
    return spilled


def readable(mangled: str) -> str:
    """The demangled name, shortened, where c++filt is there."""
    if shutil.which("c++filt") is None:
        return mangled
    name = subprocess.run(["c++filt", mangled], capture_output=True, text=True, check=False).stdout.strip()
    return re.sub(r"detectron_libra::|\(anonymous namespace\)::|torch::headeronly::|c10::|\(.*\)$", "", name)


if __name__ == "__main__":
    sys.exit(main())
