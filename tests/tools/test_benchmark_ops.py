# SPDX-License-Identifier: Apache-2.0
"""tools/benchmark_ops.py as users call it, on tiny sizes."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from detectron_libra import cli
from detectron_libra.benchmarks import cases
from tests.benchmarks.test_run import KEYS, a_case

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "benchmark_ops.py"


@pytest.fixture
def tool():
    """The tool's main, in this process, with its threads put back."""
    threads = torch.get_num_threads()
    yield runpy.run_path(str(TOOL))["main"]
    torch.set_num_threads(threads)


def test_a_table_on_the_terminal_and_json_in_a_file(tmp_path):
    file = tmp_path / "new" / "result.json"
    words = ["--quick", "--no-compile", "--threads", "1", "--op", "balanced_l1", "--op", "nms", "--json"]
    command = [sys.executable, str(TOOL), *words, str(file)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n| balanced_l1") == 4 and done.stdout.count("\n| nms") == 3
    content = json.loads(file.read_text())
    assert content["env"]["threads"] == 1 and content["env"]["page_faults"] > 0
    assert "cpu: 1 threads" in content["env"]["allocator"]
    assert {row["op"] for row in content["rows"]} == {"balanced_l1", "nms"}
    for row in content["rows"]:
        assert set(row) >= KEYS and row["pass"] in ("fwd", "fwdbwd") and row["ours_s"] > row["floor_s"] > 0
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--op", "roialign"],
            "'balanced_l1', 'conv3x3', 'focal_loss', 'match_boxes', 'nms', 'pyramid', 'roi_align'",
        ),
        (["--device", "tpu"], "cpu"),
        (["--threads", "-1"], "--threads -1"),
        (["--minutes", "0"], "--minutes 0"),
        (["MODEL.TYPE", "x"], "MODEL.TYPE"),
        (["--bogus"], "--bogus"),
    ],
)
def test_wrong_words_are_usage_errors(words, message, tool, capsys):
    assert cli.run(tool, words) == 2
    err = capsys.readouterr().err
    assert message.replace("'", "") in err.replace("'", "") and err.count("\n") == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there(tool, capsys):
    assert cli.run(tool, ["--device", "cuda"]) == 2
    assert "no GPU" in capsys.readouterr().err


def test_a_file_that_cannot_be_written_is_told_before_anything_is_measured(
    tool, capsys, tmp_path, monkeypatch
):
    monkeypatch.setattr(cases, "plan", lambda *a: pytest.fail("began to measure"))
    (tmp_path / "file").touch()
    for place in (tmp_path, tmp_path / "file" / "result.json"):
        assert cli.run(tool, ["--quick", "--json", str(place)]) == 2
        assert f"error: --json {place}: cannot be written" in capsys.readouterr().err


def test_a_wrong_kernel_is_an_error_and_the_others_are_measured(tool, capsys, tmp_path, monkeypatch):
    plan = [a_case("512", ours=lambda x: x * 3), a_case("200000")]
    monkeypatch.setattr(cases, "plan", lambda *a: plan)
    file = tmp_path / "result.json"
    assert cli.run(tool, ["--quick", "--no-compile", "--json", str(file)]) == 1
    out, err = capsys.readouterr()
    assert "an_op 512 - float32: wrong kernel, not timed" in err
    assert "| 512" not in out and "| 200000" in out
    assert [row["case"] for row in json.loads(file.read_text())["rows"]] == ["200000"] * 2
