# SPDX-License-Identifier: Apache-2.0
"""The tools that prove something about the compiled library: its symbols, and its behaviour under sanitizers."""

import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
needs_compiler = pytest.mark.skipif(not (shutil.which("g++") and shutil.which("nm")), reason="no g++ or nm")


def check_abi(*words):
    command = [sys.executable, str(ROOT / "tools/check_abi.py"), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def shared_library(folder, source):
    (folder / "x.cpp").write_text(source)
    command = ["g++", "-shared", "-fPIC", "-o", str(folder / "x.so"), str(folder / "x.cpp")]
    subprocess.run(command, check=True)
    return folder / "x.so"


@needs_compiler
@pytest.mark.parametrize("name", ["at", "c10", "torch"])
def test_a_symbol_of_torchs_cpp_interface_is_found(name, tmp_path):
    library = shared_library(
        tmp_path, f"namespace {name} {{ int f(); }}\nint g() {{ return {name}::f(); }}\n"
    )
    done = check_abi(library)
    assert done.returncode == 1
    assert f"x.so needs {name}::f()" in done.stdout and "1 of at::" in done.stdout


@needs_compiler
def test_torchs_c_interface_and_names_that_only_look_alike_are_allowed(tmp_path):
    source = """
    extern "C" int aoti_torch_f();
    namespace cat { int at(); }
    namespace mytorch { int f(); }
    int g() { return aoti_torch_f() + cat::at() + mytorch::f(); }
    """
    done = check_abi(shared_library(tmp_path, source))
    assert done.returncode == 0, done.stdout
    assert "1 of torch's C interface, 0 of at::" in done.stdout


def test_a_missing_library_names_the_remedy(tmp_path):
    done = check_abi(tmp_path / "absent.so")
    assert done.returncode == 2 and "make build" in done.stderr


def test_the_reports_of_both_sanitizers_are_read(tmp_path, monkeypatch):
    tool = runpy.run_path(str(ROOT / "tools/check_sanitizers.py"))
    line = "csrc/x.h:3:5: runtime error: signed integer overflow"
    (tmp_path / "report.1").write_text(f"{line}\n    #0 somewhere\n{line}\n")
    (tmp_path / "report.2").write_text("=====\n==7==ERROR: AddressSanitizer: heap-buffer-overflow on x\n")
    (tmp_path / "report.3").write_text("nothing of note\n")
    monkeypatch.setitem(tool["read_findings"].__globals__, "LOGS", tmp_path)
    assert tool["read_findings"]() == [line, "==7==ERROR: AddressSanitizer: heap-buffer-overflow on x"]


def test_the_steps_for_a_gpu_refuse_a_machine_that_lacks_what_they_need():
    script = ROOT / "tools/gpu_check.sh"
    done = subprocess.run(
        ["bash", str(script), "bench"],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", "GPU_PYTHON": "no-such-python", "OUT": "out/gpu"},
    )
    assert done.returncode == 2 and "set GPU_PYTHON" in done.stderr


SANITIZER = """#!/bin/bash
case "$*" in
  *"import torch"*) echo "$PROBE"; [ -z "$PROBE" ];;
  *racecheck*) exit "$RACES";;
esac
"""


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        ({}, 0, "sanitize: racecheck"),
        ({"PROBE": "Error: Device not supported"}, 0, "does not support this device here; step left out"),
        ({"COMPUTE_SANITIZER": "/absent"}, 0, "no compute-sanitizer here; step left out"),
        ({"RACES": "9"}, 9, "sanitize: racecheck"),
        ({"BUILD": "1"}, 1, "gpu-check: build"),
    ],
)
def test_a_device_without_a_sanitizer_is_said_and_a_finding_fails(changes, code, said, tmp_path):
    for name, text in (
        ("python", '#!/bin/bash\n[ "$1" != - ] || cat >/dev/null\n[ "$1" != setup.py ] || exit $BUILD\n'),
        ("sanitizer", SANITIZER),
    ):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    defaults = {"RACES": "0", "BUILD": "0", "PROBE": "", "COMPUTE_SANITIZER": str(tmp_path / "sanitizer")}
    places = {"PATH": "/usr/bin:/bin", "GPU_PYTHON": str(tmp_path / "python"), "OUT": str(tmp_path / "out")}
    done = subprocess.run(
        ["bash", str(ROOT / "tools/gpu_check.sh"), "sanitize"],
        capture_output=True,
        text=True,
        check=False,
        env=places | defaults | changes,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert said in done.stdout
