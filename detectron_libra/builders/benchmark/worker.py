# SPDX-License-Identifier: Apache-2.0
"""One contender in a process of its own, which does what the parent says and then waits.

A process each, because the allocator's settings, the handling of denormal numbers and the threads belong to a process
and not to a detector; and because what one contender keeps of freed memory is not to be seen in another's peak.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from detectron_libra.builders.benchmark.ours import build_ours
from detectron_libra.builders.benchmark.peak import Peak
from detectron_libra.builders.benchmark.plan import Order
from detectron_libra.builders.benchmark.ranges import STEP, in_ranges
from detectron_libra.builders.benchmark.shares import seconds_of_parts, shares
from detectron_libra.builders.benchmark.subject import Subject
from detectron_libra.builders.benchmark.theirs import build_theirs
from detectron_libra.builders.session import pick_device
from detectron_libra.errors import LibraError


def serve(connection: Connection, order: Order) -> None:
    """Builds the contender, then answers the calls of the parent until it hangs up.

    An answer is (True, value) or (False, exit code, text).
    """
    os.dup2(2, 1)  # what a library prints is no result
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    with contextlib.suppress(EOFError, BrokenPipeError, KeyboardInterrupt):
        try:
            worker = Worker(order)
            connection.send((True, worker.subject.settings))
            while True:
                name, arguments = connection.recv()
                connection.send((True, getattr(worker, name)(*arguments)))
        except LibraError as e:
            connection.send((False, e.exit_code, f"{order.contender.title}: {e}"))
        except (EOFError, BrokenPipeError):
            raise
        except Exception as e:  # the parent tells it, and ends the others
            text = " ".join(f"{type(e).__name__}: {e}".split())
            connection.send((False, 1, f"{order.contender.title}: {text}"))


class Worker:
    """A contender and its clock."""

    def __init__(self, order: Order) -> None:
        self.device = pick_device(order.cfg).type
        self.peak = Peak(self.device)
        build = build_theirs if order.contender.is_peer else build_ours
        self.subject: Subject = build(order)

    def turn(self, steps: int) -> float:
        """Seconds of one step, the mean of so many."""
        self._wait()
        begun = time.perf_counter()
        for _ in range(steps):
            self.subject.step()
        self._wait()
        return (time.perf_counter() - begun) / steps

    def begin(self) -> None:
        """What follows counts for the peak of the memory."""
        gc.collect()
        self.peak.begin()

    def memory(self) -> tuple[int, str]:
        """Peak in bytes, and what that is."""
        return self.peak.bytes, self.peak.how

    def profiled(self, steps: int, trace: Path | None) -> dict[str, Any]:
        """Shares of the parts in some more steps, which the profiler makes slower."""
        activities = [ProfilerActivity.CPU]
        if self.device == "cuda":
            activities.append(ProfilerActivity.CUDA)
        with in_ranges(self.subject.places):
            with profile(activities=activities):
                self.subject.step()
                self._wait()
            with profile(activities=activities) as found:
                for _ in range(steps):
                    with torch.profiler.record_function(STEP):
                        self.subject.step()
                        self._wait()
        parts = seconds_of_parts(found.events() or (), device=self.device)
        if trace:
            found.export_chrome_trace(str(trace))
        return {
            "shares": shares(parts),
            "parts": dict(sorted(parts.items())),
            "profiled_step_s": sum(parts.values()),
        }

    def counts(self) -> dict[str, float]:
        """Of one step."""
        return self.subject.counts()

    def facts(self) -> dict[str, Any]:
        """About the process."""
        return {"settings": self.subject.settings, "threads": torch.get_num_threads()}

    def _wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()
