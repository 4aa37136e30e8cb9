# SPDX-License-Identifier: Apache-2.0
"""House rules that hold for every file."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("detectron_libra", "csrc", "tools", "tests", "configs", "docs")
CODE = {".py", ".cpp", ".h", ".cu", ".cuh"}
TEXT = CODE | {".yaml", ".md", ".toml", ".txt", ".json"}
LICENSE = "SPDX-License-Identifier: Apache-2.0"
MOST_LINES = 300
#: Folders of somebody's machine; split, so that this file does not hold them.
MACHINE = re.compile("|".join(("/" + name + "/") for name in ("work", "home", "root", "Users")))


def files(kinds: set[str]) -> list[Path]:
    below = [p for folder in FOLDERS for p in (ROOT / folder).rglob("*")]
    return [p for p in [*below, *ROOT.glob("*")] if p.is_file() and p.suffix in kinds]


def test_every_source_names_its_license_first():
    sources = files(CODE)
    assert len(sources) > 100
    wrong = []
    for path in sources:
        lines = path.read_text().splitlines()
        first = lines[1] if lines and lines[0].startswith("#!") else (lines or [""])[0]
        comment = "# " if path.suffix == ".py" else "// "
        wrong += [str(path.relative_to(ROOT))] * (first != comment + LICENSE)
    assert not wrong


def test_no_python_file_outgrows_the_budget():
    lengths = {str(p.relative_to(ROOT)): len(p.read_text().splitlines()) for p in files({".py"})}
    assert {name: n for name, n in lengths.items() if n > MOST_LINES} == {}


def test_no_file_names_a_folder_of_somebodys_machine():
    wrong = []
    for path in files(TEXT):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if MACHINE.search(line):
                wrong.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}")
    assert not wrong


@pytest.mark.parametrize("folder", ["detectron_libra", "tools"])
def test_nothing_evaluates_text_or_unpickles_freely(folder):
    calls = re.compile(r"(?<![\w.])(eval|exec)\(|pickle\.loads?\(|yaml\.(unsafe_)?load\(|weights_only=False")
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in (ROOT / folder).rglob("*.py")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if calls.search(line)
    ]
    assert not found
