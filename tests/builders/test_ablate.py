# SPDX-License-Identifier: Apache-2.0
"""Time, signals and stored files of an ablation, without a training."""

import json
import os
import signal

import pytest

from detectron_libra.builders.ablate import (
    Planned,
    exit_at_sigterm,
    minutes_of,
    pace,
    require_unchanged,
    tell_of_others,
)
from detectron_libra.config import Config, dump, with_values
from detectron_libra.errors import InputError, UsageError


def lines(file, *entries):
    file.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return file


def make_run(folder, minutes=None):
    """A run of a folder, finished if it took minutes."""
    folder.mkdir()
    if minutes is not None:
        entry = {"parts": [], "seed": 3, "metrics": {}, "minutes": minutes}
        (folder / "run.json").write_text(json.dumps(entry))
    return Planned((), 3, with_values(Config(), {"OUTPUT_DIR": str(folder)}))


def test_minutes_are_those_of_all_iterations_and_evaluations_take_no_part(tmp_path):
    """0.5 s for iteration 0, 20 of 1 s, then after an interrupt 9 of 3 s."""
    file = lines(
        tmp_path / "metrics.jsonl",
        {"iter": 0, "time": 0.5},
        {"iter": 20, "time": 1.0},
        {"iter": 20, "eval": {}},
        {"iter": 29, "time": 3.0},
    )
    assert minutes_of(file) == pytest.approx((0.5 + 20 + 27) / 60)


def test_a_log_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(InputError, match="metrics.jsonl"):
        minutes_of(tmp_path / "metrics.jsonl")


def test_the_time_to_go_is_estimated_from_the_finished_runs(tmp_path):
    first, others = make_run(tmp_path / "a"), [make_run(tmp_path / name) for name in "bc"]
    assert pace([first, *others]) == "how long all of them take is known after the first"
    finished = [make_run(tmp_path / "d", 10.0), make_run(tmp_path / "e", 14.0)]
    assert pace([*finished, first, *others]) == "24 minutes so far, about 36 to go"


def test_sigterm_between_trainings_exits_as_within_one():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as caught, exit_at_sigterm():
        os.kill(os.getpid(), signal.SIGTERM)
    assert caught.value.code == 143 and signal.getsignal(signal.SIGTERM) is before


def test_keys_that_no_result_depends_on_may_change(tmp_path):
    run = make_run(tmp_path / "a")
    begun = with_values(run.cfg, {"DATA.WORKERS": 7, "LOG.PERIOD": 3, "OUTPUT_DIR": "elsewhere"})
    (run.folder / "config.yaml").write_text(dump(begun))
    require_unchanged([run])
    (run.folder / "config.yaml").write_text(dump(with_values(begun, {"SOLVER.MAX_ITER": 9, "TEST.NMS": 0.4})))
    with pytest.raises(UsageError, match=r"SOLVER.MAX_ITER: 9 -> 40000; TEST.NMS: 0.4 -> 0.3; undo it"):
        require_unchanged([run])


def test_where_others_do_every_run_there_is_nothing_to_report(tmp_path):
    first = make_run(tmp_path / "a")
    with pytest.raises(UsageError, match=r"done by another process already: baseline, seed 3 \(process 12\)"):
        tell_of_others([first], [(first, "12")])
    tell_of_others([first], [])


def test_runs_that_others_have_finished_meanwhile_are_not_said_to_be_under_way(tmp_path, caplog):
    """What was held when its turn came may be done by the end: only what is still going on is named."""
    first, second = make_run(tmp_path / "a"), make_run(tmp_path / "b", 1.0)
    with caplog.at_level("INFO"):
        tell_of_others([first, second], [(second, "12")])
        assert not caplog.text
        tell_of_others([first, second], [(first, "13"), (second, "12")])
    assert "left to other processes: baseline, seed 3 (process 13)\n" in caplog.text
