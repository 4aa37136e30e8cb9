# SPDX-License-Identifier: Apache-2.0
"""The rules of the source tree that the build relies on, and what the backend switch promises."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from detectron_libra.errors import UsageError
from detectron_libra.ops import backend
from tests.ops.harness import needs_kernels

ROOT = Path(__file__).resolve().parents[2]
CSRC = ROOT / "csrc"
OPS = sorted(path for path in (CSRC / "ops").iterdir() if path.is_dir())


def run_python(code: str, **environment) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environment,
    )


@needs_kernels
@pytest.mark.skipif(shutil.which("nm") is None, reason="no nm")
def test_the_library_has_the_stable_name_and_no_private_symbols():
    tool = ROOT / "tools" / "check_abi.py"
    done = subprocess.run([sys.executable, str(tool)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "_C.abi3.so" in done.stdout and "0 of at::, c10:: or torch::" in done.stdout


def test_no_aten_header():
    """Only stable and header-only headers: others tie the library to one torch version."""
    for file in [f for f in CSRC.rglob("*") if f.suffix in {".h", ".cuh", ".cpp", ".cu"}]:
        for line in file.read_text().splitlines():
            if line.startswith("#include <torch/"):
                assert line.startswith(("#include <torch/csrc/stable/", "#include <torch/headeronly/")), (
                    f"{file}: {line}"
                )
            assert not line.startswith(("#include <ATen", "#include <c10")), f"{file}: {line}"


#: Left to cuDNN on a GPU, which chooses among algorithms of this kind by itself.
CPU_ONLY = {"conv3x3"}


@pytest.mark.parametrize("op", OPS, ids=lambda path: path.name)
def test_an_operator_is_a_folder_of_the_same_name_everywhere(op):
    for suffix in (".cpp", "_cpu.cpp", *(() if op.name in CPU_ONLY else ("_cuda.cu",))):
        assert (op / f"{op.name}{suffix}").exists()
    assert (ROOT / "detectron_libra/ops" / op.name / "reference.py").exists()
    assert (ROOT / "tests/ops" / f"test_{op.name}.py").exists()


def test_object_files_cannot_overwrite_each_other():
    """Objects are named by stem: x.cpp and x.cu in one folder would be one object."""
    for op in OPS:
        sources = [f for f in op.iterdir() if f.suffix in {".cpp", ".cu"}]
        assert len({f.stem for f in sources}) == len(sources), op
        assert all(f.stem.endswith("_cuda") for f in sources if f.suffix == ".cu"), op


@needs_kernels
def test_every_operator_with_a_gradient_refuses_the_second():
    """A *_backward operator without an autograd rule gives a silently wrong second derivative."""
    import importlib

    for op in OPS:
        importlib.import_module(f"detectron_libra.ops.{op.name}")
    names = [name.split(".")[0] for name in torch._C._dispatch_get_all_op_names()]
    backward = {n for n in names if n.startswith("detectron_libra::") and n.endswith("_backward")}
    assert backward
    for name in backward:
        assert torch._C._dispatch_has_kernel_for_dispatch_key(name, "Autograd"), name


def test_without_the_library_the_reference_runs_and_says_so():
    code = (
        "import sys; sys.modules['detectron_libra._C'] = None\n"
        "import torch; from detectron_libra.ops import backend\n"
        "from detectron_libra.ops.balanced_l1 import balanced_l1\n"
        "x = torch.ones(3); print(balanced_l1(x, x).sum().item(), backend.is_built())\n"
        "print(backend.describe())\n"
        "backend.set_backend('compiled')"
    )
    done = run_python(code)
    assert done.stdout.startswith("0.0 False")
    assert "plain PyTorch reference" in done.stdout
    assert "make build" in done.stdout
    assert "UsageError: OPS.BACKEND: compiled, but the kernels are" in done.stderr


def test_backend_switch():
    before = backend.get_backend()
    with pytest.raises(UsageError, match="OPS.BACKEND: 'fast'"):
        backend.set_backend("fast")
    try:
        backend.set_backend("reference")
        assert not backend.use_compiled(torch.zeros(1))
        backend.set_backend("auto")
        assert backend.use_compiled(torch.zeros(1)) == backend.is_built()
        assert not backend.use_compiled(torch.zeros(1, device="meta"))
        if backend.is_built():
            backend.set_backend("compiled")
            with pytest.raises(UsageError, match="no kernels for meta"):
                backend.use_compiled(torch.zeros(1, device="meta"))
    finally:
        backend.set_backend(before)


def test_setup_without_torch_names_the_remedy():
    done = run_python("import sys; sys.modules['torch'] = None; import setup")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "pip install torch" in done.stderr
    assert "--no-build-isolation" in done.stderr


@pytest.mark.skipif(torch.version.cuda is not None, reason="this torch has CUDA")
def test_forced_cuda_without_cuda_says_why():
    done = run_python("import sys; sys.argv = ['setup.py', '--name']; import setup", FORCE_CUDA="1")
    assert done.returncode == 1
    assert "FORCE_CUDA=1, but torch" in done.stderr
