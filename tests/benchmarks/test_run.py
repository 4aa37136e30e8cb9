# SPDX-License-Identifier: Apache-2.0
"""From cases to rows and to the table: nothing wrong is timed, nothing is lost in silence."""

import json
import logging

import pytest
import torch

from detectron_libra.benchmarks.case import Case, Problem, Setup
from detectron_libra.benchmarks.environment import environment
from detectron_libra.benchmarks.floor import Machine
from detectron_libra.benchmarks.run import run_cases
from detectron_libra.benchmarks.table import HEADS, markdown, seconds

MACHINE = Machine(copy=1e10, copy_in_cache=1e11, flops=1e11)
QUICK = Setup(quick=True)
#: What a row holds for readers outside.
KEYS = {
    "op", "case", "layout", "dtype", "device", "threads", "pass", "ours_s", "eager_s", "compile_s", "peer",
    "peer_s", "floor_s", "bytes", "peak_extra_bytes", "spread",
}  # fmt: skip


def a_case(name="512", *, ours=lambda x: x * 2, eager=lambda x: x + x, **changes):
    def build():
        x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
        options = {"bytes_fwd": 2048, "bytes_fwdbwd": 4096, "expected": lambda x: 2 * x} | changes
        return Problem(inputs=[x], ours=ours, eager=eager, **options)

    return Case("an_op", name, "-", "float32", build)


def run(*cases, **options):
    return run_cases(cases, QUICK, MACHINE, **{"limit_s": 60, "compiles": False} | options)


def test_a_row_for_each_pass():
    outcome = run(a_case())
    assert [row.pass_ for row in outcome.rows] == ["fwd", "fwdbwd"]
    for row in outcome.rows:
        values = row.as_json()
        assert set(values) >= KEYS
        assert values["ours_s"] > 0 and values["eager_s"] > 0
        assert values["compile_s"] is None and values["peer"] is None and values["peer_s"] is None
        assert values["floor_s"] == pytest.approx(values["bytes"] / 1e10)
        assert values["peak_extra_bytes"] >= 1024
        json.dumps(values)


def test_a_wrong_kernel_is_named_and_not_timed():
    counted = []

    def wrong(x):
        counted.append(1)
        return x * 2.01

    outcome = run(a_case("512", ours=wrong), a_case("200000"))
    assert len(counted) == 1
    assert [row.case for row in outcome.rows] == ["200000", "200000"]
    assert len(outcome.wrong) == 1
    assert outcome.wrong[0].startswith("an_op 512 - float32: wrong kernel, not timed: output or gradient 0: ")


def test_a_wrong_gradient_alone_is_a_wrong_kernel():
    outcome = run(a_case(ours=lambda x: x + x.detach()))
    assert not outcome.rows and "output or gradient 1" in outcome.wrong[0]


def test_a_comparison_with_something_else_is_noted(caplog):
    with caplog.at_level(logging.WARNING):
        outcome = run(a_case(eager=lambda x: x * 3))
    assert any("eager computes something else" in note for row in outcome.rows for note in row.notes)
    assert "eager computes something else" in caplog.text


def test_rows_come_in_the_order_of_the_plan_though_images_come_last():
    outcome = run(a_case("800x1344_b2"), a_case("512"))
    assert [row.case for row in outcome.rows] == ["800x1344_b2"] * 2 + ["512"] * 2


def test_every_operator_has_its_turn_before_any_has_its_second():
    order = []

    def watched(op, name):
        case = a_case(name)
        return Case(op, name, "-", "float32", lambda: (order.append((op, name)), case.build())[1])

    run(watched("a", "8x8_b1"), watched("a", "8x8_b2"), watched("b", "8x8_b1"), watched("b", "512"))
    assert order == [("b", "512"), ("a", "8x8_b1"), ("b", "8x8_b1"), ("a", "8x8_b2")]


def test_what_there_is_no_time_for_is_named():
    outcome = run(a_case("512"), limit_s=1e-9)
    assert not outcome.rows and outcome.left_out == ["an_op 512 - float32: no time left"]


def test_a_comparison_that_cannot_be_compiled_is_null_and_says_why():
    outcome = run(a_case(compiles=False), compiles=True)
    assert all(row.compile_s is None for row in outcome.rows)
    assert any("no torch.compile: a loop" in note for note in outcome.rows[0].notes)


def test_compiled_eager_is_timed(monkeypatch):
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f: compile_(f, backend="aot_eager"))
    outcome = run(a_case(), compiles=True)
    assert all(row.compile_s > 0 for row in outcome.rows)


def test_a_compiler_that_breaks_leaves_the_other_columns(monkeypatch):
    def broken(f):
        def call(*args):
            raise RuntimeError("no compiler\nhere")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    outcome = run(a_case(), compiles=True)
    assert all(row.compile_s is None and row.eager_s > 0 for row in outcome.rows)
    assert "no torch.compile: RuntimeError: no compiler" in outcome.rows[0].notes


def test_the_table_is_markdown_of_one_width():
    lines = markdown(run(a_case()).rows).splitlines()
    assert len(lines) == 4 and len({len(line) for line in lines}) == 1
    assert [cell.strip() for cell in lines[0].strip("|").split("|")] == [*HEADS]
    assert set(lines[1]) == {"|", "-"}


def test_the_table_has_a_column_for_cold_caches_where_there_are_some():
    rows = run(a_case()).rows
    rows[0].ours_cold_s = 0.002
    assert "ours, cold" in markdown(rows) and "2 ms" in markdown(rows)


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), (2.5, "2.5 s"), (0.0123, "12.3 ms"), (4.56e-5, "45.6 us")]
)
def test_seconds_have_a_unit(value, text):
    assert seconds(value) == text


def test_the_environment_names_no_machine():
    env = environment("cpu", MACHINE, allocator="as it is")
    assert {"torch", "python", "cpu", "cores", "threads", "allocator", "commit", "date"} <= set(env)
    assert {"copy_bytes_per_s", "copy_in_cache_bytes_per_s", "instruction_set", "operators"} <= set(env)
    import platform

    assert not platform.node() or platform.node() not in json.dumps(env)
