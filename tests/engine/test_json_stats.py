# SPDX-License-Identifier: Apache-2.0
"""Detectron's json_stats lines: written in its form, read in every form its logs have."""

import json
import logging
import math

import pytest

from detectron_libra.engine.json_stats import json_stats, read_json_stats
from detectron_libra.errors import InputError
from detectron_libra.logs import setup_logging
from tests.engine.toy import run

#: What logs hold: texts (the last versions), numbers (2018), and other lines between them.
TEXTS = (
    'json_stats: {"eta": "8:10:03", "fl_fpn3": "0.109512", "iter": 20, "loss": "1.296814", "lr": "0.003600", '
    '"mb_qsize": 64, "mem": 5221, "time": "0.326720"}'
)
NUMBERS = (
    'json_stats: {"eta": "1 day, 2:03:04", "iter": 40, "loss": 1.25, "lr": 0.0072, "mb_qsize": 64, "mem": 5221, '
    '"time": 0.5}'
)


def test_a_line_is_what_detectron_writes():
    line = json_stats({"loss": 1.5, "iter": 20, "eta": "0:01:00", "lr": 0.02, "mem": 3, "bad": math.nan})
    assert line == (
        'json_stats: {"bad": "nan", "eta": "0:01:00", "iter": 20, "loss": "1.500000", "lr": "0.020000", "mem": 3}'
    )


def test_texts_and_numbers_give_the_same_kinds():
    lines = ["INFO train.py: 1: begin", TEXTS, "", f"INFO stats.py:  12: {NUMBERS} "]
    first, second = read_json_stats(lines)
    assert first == {
        "eta": 29403,
        "fl_fpn3": 0.109512,
        "iter": 20,
        "loss": 1.296814,
        "lr": 0.0036,
        "mb_qsize": 64,
        "mem": 5221,
        "time": 0.32672,
    }
    assert second["loss"] == 1.25 and second["eta"] == (26 * 60 + 3) * 60 + 4
    assert isinstance(second["iter"], int) and isinstance(first["lr"], float)


@pytest.mark.parametrize(
    ("eta", "seconds"), [("0:00:09", 9), ("12 days, 1:00:00", 1040400), ("-1 day, 23:59:50", -10)]
)
def test_durations_are_seconds(eta, seconds):
    assert read_json_stats([json_stats({"eta": eta})]) == [{"eta": seconds}]


@pytest.mark.parametrize(
    ("text", "expected"),
    [('"nan"', math.nan), ("NaN", math.nan), ('"-inf"', -math.inf), ("-Infinity", -math.inf)],
)
def test_a_loss_that_is_not_finite_reads_as_what_it_is(text, expected):
    (values,) = read_json_stats([f'json_stats: {{"loss": {text}}}'])
    assert values["loss"] == pytest.approx(expected, nan_ok=True)


def test_a_cut_line_is_left_out_and_told(tmp_path, caplog):
    file = tmp_path / "log.txt"
    file.write_text(f"{TEXTS}\n{TEXTS[:60]}\njson_stats: 3\n")
    assert len(read_json_stats(file)) == 1
    assert "2 json_stats lines" in caplog.text
    with pytest.raises(InputError, match="gone"):
        read_json_stats(tmp_path / "gone")


def test_a_run_of_ours_reads_back_and_its_lines_stand_alone(tmp_path):
    root = logging.getLogger()
    before = root.handlers[:], root.level
    try:
        setup_logging(tmp_path / "log.txt")
        run(tmp_path, max_iter=6, log_period=2)
    finally:
        root.handlers[:], root.level = before
    found = read_json_stats(tmp_path / "log.txt")
    written = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [values["iter"] for values in found] == [0, 2, 4, 5]
    for mine, exact in zip(found, written, strict=True):
        assert {"iter", "lr", "time", "loss", "eta", "mb_qsize", "mem"} <= set(mine) == set(exact)
        assert mine["loss"] == pytest.approx(exact["loss"], abs=1e-6)
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert sum(line.startswith('json_stats: {"') for line in lines) == 4
    assert any(line.startswith("INFO ") for line in lines)
