# SPDX-License-Identifier: Apache-2.0
"""Layers point one way: tools -> builders -> engine -> parts -> ops; builders, tools and cli alone see the config."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "detectron_libra"

BASE = {"errors", "geometry", "structures", "files", "garbage", "logs", "machine"}
PARTS = {"evaluation", "data", "modeling", "weights", "report"}
#: What each package or module of the top level may import besides itself and BASE.
ALLOWED = {
    **{name: set() for name in BASE | {"ops", "config"}},
    **{name: {"ops"} for name in PARTS},
    "engine": PARTS | {"ops"},
    "analysis": PARTS | {"ops"},
    "benchmarks": {"ops", "evaluation"},
    "builders": PARTS | {"ops", "engine", "analysis", "config", "benchmarks"},
    "cli": {"config"},
    "__init__": {"builders"},
}
SOURCES = sorted((ROOT / PACKAGE).rglob("*.py"))


def imported(source: str, package: tuple[str, ...]) -> set[str]:
    """Full names that a source imports, relative ones and those inside functions included."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            module = ".".join(base + ([node.module] if node.module else []))
            names |= {f"{module}.{alias.name}" for alias in node.names}
    return names


def top(path: Path) -> str:
    """The package or module right below detectron_libra that a file belongs to."""
    return path.relative_to(ROOT / PACKAGE).with_suffix("").parts[0]


def outward(source: str, path: Path) -> set[str]:
    """Packages and modules of the top level that a file imports, its own left out."""
    package = path.relative_to(ROOT).parts[:-1]
    ours = (name.split(".") for name in imported(source, package) if name.split(".")[0] == PACKAGE)
    tops = {parts[1] for parts in ours if len(parts) > 1}
    return {
        name for name in tops if (ROOT / PACKAGE / name).exists() or (ROOT / PACKAGE / f"{name}.py").exists()
    } - {top(path)}


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT / PACKAGE)))
def test_a_module_imports_only_the_layers_below(path):
    assert top(path) in ALLOWED, f"{top(path)} has no place in the layers yet: add it to ALLOWED"
    wrong = outward(path.read_text(), path) - ALLOWED[top(path)] - BASE
    assert not wrong, f"{path.relative_to(ROOT)} imports {', '.join(sorted(wrong))}"


@pytest.mark.parametrize("path", sorted((ROOT / "tools").glob("*.py")), ids=lambda p: p.name)
def test_a_tool_imports_no_other_tool_and_no_test(path):
    tops = {name.split(".")[0] for name in imported(path.read_text(), ())}
    assert not tops & ({"tools", "tests"} | {p.stem for p in (ROOT / "tools").glob("*.py")})


def test_the_parser_sees_relative_imports_and_those_inside_functions():
    path = ROOT / PACKAGE / "data/deep/module.py"
    assert outward("def f():\n    from ...config import load_config", path) == {"config"}
    assert outward("from ... import engine", path) == {"engine"}
    assert outward("from ..coco import Dataset\nimport detectron_libra.builders.data", path) == {"builders"}
