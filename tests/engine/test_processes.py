# SPDX-License-Identifier: Apache-2.0
"""Processes side by side, real ones: all end well, or one error names the one that did not and none is left."""

import os
import signal
import sys
import time

import pytest

from detectron_libra.engine import processes
from detectron_libra.engine.processes import Job, run_all
from detectron_libra.engine.signals import StopFlag
from detectron_libra.errors import RunError


@pytest.fixture
def python(tmp_path):
    def job(name: str, code: str, **variables: str) -> Job:
        return Job([sys.executable, "-c", code], tmp_path / name, {**os.environ, **variables})

    return job


def run(*jobs: Job, stop: StopFlag | None = None, watch=lambda: None) -> None:
    run_all(jobs, stop=StopFlag() if stop is None else stop, watch=watch)


def test_all_run_at_once_with_their_own_variables_and_logs(python, tmp_path):
    # each waits for what the other writes
    code = (
        "import os, pathlib, sys, time\n"
        f"here = pathlib.Path({str(tmp_path)!r})\n"
        "(here / os.environ['MINE']).touch()\n"
        "while not (here / os.environ['OTHER']).exists(): time.sleep(0.01)\n"
        "print('out', os.environ['MINE']); print('err', file=sys.stderr)"
    )
    looks = []
    run(
        python("1", code, MINE="a", OTHER="b"),
        python("2", code, MINE="b", OTHER="a"),
        watch=lambda: looks.append(1),
    )
    assert sorted((tmp_path / "1").read_text().split()) == ["a", "err", "out"]
    assert "out b" in (tmp_path / "2").read_text() and looks


def test_one_that_fails_ends_the_others_and_is_quoted(python, tmp_path):
    sleeper = (
        "import os, pathlib, time\n"
        f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid())); time.sleep(60)"
    )
    failing = (
        f"import pathlib, sys, time\nwhile not pathlib.Path({str(tmp_path / 'pid')!r}).exists(): time.sleep(0.01)\n"
        "print('first'); print('one'); print('error: no  such image'); sys.exit(3)"
    )
    with pytest.raises(RunError) as error:
        run(python("sleeper", sleeper), python("failing", failing))
    assert str(error.value).startswith(f"{tmp_path / 'failing'}: ")
    assert "ended with code 3: first | one | error: no such image" in str(error.value)
    pid = int((tmp_path / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_one_that_is_killed_is_told_with_the_signal(python):
    with pytest.raises(RunError, match="was ended by signal 9: it said nothing"):
        run(python("killed", "import os; os.kill(os.getpid(), 9)"))


def test_a_stop_ends_all_even_one_that_does_not_heed_it(python, tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "GRACE_S", 0.2)
    deaf = (
        "import pathlib, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"pathlib.Path({str(tmp_path / 'ready')!r}).touch(); time.sleep(60)"
    )
    stop = StopFlag()

    def watch():
        if (tmp_path / "ready").exists():
            stop.signal = signal.SIGTERM

    begun = time.monotonic()
    with pytest.raises(SystemExit) as error:
        run(python("deaf", deaf), stop=stop, watch=watch)
    assert error.value.code == 143 and time.monotonic() - begun < 30


def test_a_program_that_is_not_there_is_an_error_of_one_line(tmp_path):
    with pytest.raises(RunError, match="cannot be started: No such file"):
        run(Job([str(tmp_path / "gone")], tmp_path / "log"))
