# SPDX-License-Identifier: Apache-2.0
"""Builds detectron_libra/_C.abi3.so (operators) and, for development, detectron_libra/_math (formulas).

Environment: FORCE_CUDA=1 the CUDA kernels must be built, =0 they must not (default: where torch and nvcc
allow); TORCH_CUDA_ARCH_LIST the GPU architectures; LIBRA_MATH=0 leaves out _math; MAX_JOBS compilers at once;
LIBRA_SANITIZE=address,undefined builds for these sanitizers (tools/check_sanitizers.py sets it, in a copy).
"""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup

try:
    import torch
    from torch.utils.cpp_extension import CUDA_HOME, BuildExtension, CppExtension, CUDAExtension
except ImportError as error:
    raise SystemExit(
        f"detectron_libra: cannot import torch ({error}): run `pip install torch` first, "
        "then `pip install --no-build-isolation .`"
    ) from None

ROOT = Path(__file__).parent.resolve()
TARGET = "-DTORCH_TARGET_VERSION=0x020a000000000000"  # the stable ABI of torch 2.10: newer ones load it too
CXX_FLAGS = [
    "-O3",
    "-g0",
    "-std=c++20",
    # The same bits for every instruction set, and no flags or errno that would forbid vector instructions.
    "-ffp-contract=off",
    "-fno-trapping-math",
    "-fno-math-errno",
    "-fvisibility=hidden",
    "-Wall",
    "-Wno-unknown-pragmas",
    TARGET,
]
SANITIZE = os.getenv("LIBRA_SANITIZE")
LINK_FLAGS = [f"-fsanitize={SANITIZE}"] if SANITIZE else []
if SANITIZE:
    # Behind the others, so that it counts; line numbers for the reports.
    CXX_FLAGS += [*LINK_FLAGS, "-fno-omit-frame-pointer", "-g1", "-O1"]
# Without a GPU to ask, torch would compile for every architecture it knows.
DEFAULT_ARCHITECTURES = "8.0;9.0+PTX"


def nvcc_version() -> str | None:
    """Version "major.minor" of the nvcc that torch would call, None where there is none."""
    if CUDA_HOME is None:
        return None
    try:
        text = subprocess.run(
            [f"{CUDA_HOME}/bin/nvcc", "--version"], capture_output=True, text=True, check=False
        ).stdout
    except OSError:
        return None
    found = re.search(r"release (\d+\.\d+)", text)
    return found.group(1) if found else None


def why_no_cuda() -> str | None:
    """The reason to leave the CUDA kernels out, None where they can be compiled."""
    if torch.version.cuda is None:
        return f"torch {torch.__version__} has no CUDA; install a CUDA build of torch"
    nvcc = nvcc_version()
    if nvcc is None:
        return f"no nvcc found; install the CUDA {torch.version.cuda} toolkit or set CUDA_HOME"
    if nvcc.split(".")[0] != torch.version.cuda.split(".")[0]:
        return f"nvcc is {nvcc} and torch has CUDA {torch.version.cuda}; set CUDA_HOME to a matching toolkit"
    return None


def cuda_decision() -> tuple[bool, str]:
    """(build the CUDA kernels, one clause that says so)."""
    force = os.getenv("FORCE_CUDA")
    if force not in (None, "", "0", "1"):
        raise SystemExit(f"detectron_libra: FORCE_CUDA={force} is not 0 or 1")
    if force == "0":
        return False, "CUDA kernels left out: FORCE_CUDA=0"
    reason = why_no_cuda()
    if reason is None:
        return True, f"CUDA {torch.version.cuda} kernels"
    if force == "1":
        raise SystemExit(f"detectron_libra: FORCE_CUDA=1, but {reason}")
    return False, f"CUDA kernels left out: {reason}"


def operators(use_cuda: bool) -> Extension:
    """One translation unit per file of csrc/ops/<op>/: a new operator is a new folder and no line here."""
    sources = [ROOT / "csrc/module.cpp", *sorted(set(ROOT.glob("csrc/ops/*/*.cpp")) - set(formula_sources()))]
    flags = {"cxx": CXX_FLAGS}
    if use_cuda:
        if not torch.cuda.is_available():
            os.environ.setdefault("TORCH_CUDA_ARCH_LIST", DEFAULT_ARCHITECTURES)
        sources += sorted(ROOT.glob("csrc/ops/*/*_cuda.cu"))
        flags["nvcc"] = ["-O3", "-std=c++20", "-DUSE_CUDA", TARGET]
    return (CUDAExtension if use_cuda else CppExtension)(
        "detectron_libra._C",
        [str(source.relative_to(ROOT)) for source in sources],
        include_dirs=[str(ROOT / "csrc")],
        extra_compile_args=flags,
        extra_link_args=LINK_FLAGS,
        py_limited_api=True,
    )


def formula_sources() -> list[Path]:
    """What adds an operator's formulas to detectron_libra._math, and is no part of _C."""
    return sorted(ROOT.glob("csrc/ops/*/*_math.cpp"))


def formulas() -> list[Extension]:
    """detectron_libra._math: tied to one Python version, so never part of a wheel."""
    if (
        os.getenv("LIBRA_MATH") == "0"
        or "bdist_wheel" in sys.argv
        or importlib.util.find_spec("pybind11") is None
    ):
        return []
    import pybind11

    return [
        Extension(
            "detectron_libra._math",
            ["csrc/math_module.cpp", *(str(source.relative_to(ROOT)) for source in formula_sources())],
            include_dirs=[str(ROOT / "csrc"), pybind11.get_include()],
            extra_compile_args=[flag for flag in CXX_FLAGS if flag != TARGET],
            extra_link_args=LINK_FLAGS,
            language="c++",
        )
    ]


USE_CUDA, CUDA_CLAUSE = cuda_decision()
EXTENSIONS = [operators(USE_CUDA), *formulas()]


class Build(BuildExtension):
    """torch's build, with one place for object files, so that a second one compiles what changed."""

    def finalize_options(self):
        super().finalize_options()
        self.build_temp = str(ROOT / "build" / f"{sys.implementation.cache_tag}-torch{torch.__version__}")

    def run(self):
        super().run()
        link = "with CPU and" if USE_CUDA else "with CPU kernels;"
        line = f"detectron_libra: built _C.abi3.so {link} {CUDA_CLAUSE}"
        if len(EXTENSIONS) > 1:
            line += "; _math for development"
        summary = ROOT / "build" / "summary.txt"
        summary.parent.mkdir(exist_ok=True)
        summary.write_text(line + "\n")
        print(line, flush=True)


setup(
    ext_modules=EXTENSIONS,
    cmdclass={"build_ext": Build},
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
