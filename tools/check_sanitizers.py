# SPDX-License-Identifier: Apache-2.0
"""The operators' tests on CPU kernels built with the address and undefined-behaviour sanitizers of g++.

Works in a copy of the sources (build/asan), so that the library in use stays as it is. Leaks are not looked for:
Python and torch keep memory until the process ends. Arguments go to pytest (default: tests/ops).
Exit codes: 0 clean; 1 a finding, or a test failed; 2 the sanitizers' libraries are missing.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COPY = ROOT / "build" / "asan"
LOGS = COPY / "logs"
PARTS = ("detectron_libra", "csrc", "tests", "tools", "setup.py", "pyproject.toml", "README.md", "LICENSE")
#: A report of either sanitizer begins so.
FINDING = re.compile(r"^.*(?:runtime error: |ERROR: AddressSanitizer: ).*$", re.MULTILINE)


def main(arguments: list[str]) -> int:
    libraries = preloads()
    if libraries is None:
        print("check_sanitizers: g++ has no libasan or libubsan; apt-get install g++", file=sys.stderr)
        return 2
    copy_sources()
    built = run([sys.executable, "setup.py", "-q", "build_ext", "--inplace"], build_environment())
    if built != 0:
        return 1
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow"]
    status = run([*command, *(arguments or ["tests/ops"])], test_environment(libraries))
    findings = read_findings()
    for finding in findings:
        print(finding)
    print(f"check_sanitizers: {len(findings)} findings, tests {'passed' if status == 0 else 'did not pass'}")
    if findings:
        print(f"check_sanitizers: the reports are in {LOGS.relative_to(ROOT)}")
    return 1 if findings or status else 0


def preloads() -> str | None:
    """What must be loaded before Python for a library built with sanitizers; None where g++ has none."""
    names = ("libasan.so", "libubsan.so", "libstdc++.so.6")
    found = [
        subprocess.run(
            ["g++", f"-print-file-name={name}"], capture_output=True, text=True, check=False
        ).stdout.strip()
        for name in names
    ]
    # Where there is no such file, g++ prints the name as it got it.
    return None if any(not os.path.isabs(path) for path in found) else " ".join(found)


def copy_sources() -> None:
    """Brings the copy up to date; files keep their age, so that only what changed is compiled."""
    COPY.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(LOGS, ignore_errors=True)
    LOGS.mkdir()
    for part in PARTS:
        source, target = ROOT / part, COPY / part
        if source.is_file():
            shutil.copy2(source, target)
            continue
        built = {file.name: file for file in target.glob("*.so")}
        kept = {name: file.rename(COPY / name) for name, file in built.items()}
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
        for name, file in kept.items():
            file.rename(target / name)


def build_environment() -> dict[str, str]:
    """For setup.py; what a sanitizer cannot see is left out."""
    return clean() | {"LIBRA_SANITIZE": "address,undefined", "FORCE_CUDA": "0"}


def test_environment(libraries: str) -> dict[str, str]:
    """For pytest: reports go to files, where pytest does not swallow them."""
    logs = f"log_path={LOGS}/report"
    return clean() | {
        "LD_PRELOAD": libraries,
        "ASAN_OPTIONS": f"detect_leaks=0:{logs}",
        "UBSAN_OPTIONS": f"print_stacktrace=1:{logs}",
    }


def clean() -> dict[str, str]:
    """The environment, with the copy in place of any other checkout."""
    return os.environ | {"PYTHONPATH": str(COPY), "PYTHONDONTWRITEBYTECODE": "1"}


def run(command: list[str], environment: dict[str, str]) -> int:
    return subprocess.run(command, cwd=COPY, env=environment, check=False).returncode


def read_findings() -> list[str]:
    """The first line of each report, each once."""
    lines: dict[str, None] = {}
    for file in sorted(LOGS.iterdir()):
        lines |= dict.fromkeys(FINDING.findall(file.read_text(errors="replace")))
    return list(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
