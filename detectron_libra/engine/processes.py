# SPDX-License-Identifier: Apache-2.0
"""Processes side by side: they end well together, or one error names the one that did not and ends the others."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from detectron_libra.engine.signals import StopFlag
from detectron_libra.errors import RunError

#: Seconds between two looks at the processes.
PERIOD_S = 0.2
#: Seconds that a process has to end by itself once it is asked to.
GRACE_S = 5.0
#: Lines of a log that an error quotes.
QUOTED_LINES = 3


@dataclass(frozen=True)
class Job:
    """One process.

    Attributes:
        command: program and arguments.
        output: file that takes what it says, on stdout and stderr.
        environment: all variables; None hands on those of this process.
    """

    command: Sequence[str]
    output: Path
    environment: Mapping[str, str] | None = None


def run_all(jobs: Sequence[Job], *, stop: StopFlag, watch: Callable[[], None]) -> None:
    """Starts all jobs and waits until every one has ended. None of them outlives this function.

    Args:
        jobs: processes.
        stop: once it is set, SystemExit is raised.
        watch: called again and again while they run.

    Raises:
        RunError: one cannot be started, or ends with another exit code than 0; quotes its last lines.
        SystemExit: 129, 130 or 143 after ``stop``.
    """
    running: list[subprocess.Popen] = []
    try:
        for job in jobs:
            running.append(_start(job))
        while any(process.poll() is None for process in running):
            _check(jobs, running, stop)
            watch()
            time.sleep(PERIOD_S)
        _check(jobs, running, stop)
        watch()
    finally:
        _end(running)


def _start(job: Job) -> subprocess.Popen:
    environment = None if job.environment is None else dict(job.environment)
    try:
        with open(job.output, "wb") as output:
            return subprocess.Popen(
                list(job.command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
            )
    except OSError as e:
        raise RunError(f"{job.output}: its process cannot be started: {e.strerror}") from e


def _check(jobs: Sequence[Job], running: Sequence[subprocess.Popen], stop: StopFlag) -> None:
    if stop:
        raise SystemExit(stop.exit_code)
    for job, process in zip(jobs, running, strict=True):
        code = process.poll()
        if code:
            ended = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
            raise RunError(f"{job.output}: the process that wrote it {ended}: {_last_lines(job.output)}")


def _last_lines(file: Path) -> str:
    try:
        lines = file.read_text(errors="replace").splitlines()
    except OSError as e:
        return str(e)
    return " | ".join(" ".join(line.split()) for line in lines[-QUOTED_LINES:]) or "it said nothing"


def _end(running: Sequence[subprocess.Popen]) -> None:
    for process in running:
        if process.poll() is None:
            process.terminate()
    deadline = time.monotonic() + GRACE_S
    for process in running:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
