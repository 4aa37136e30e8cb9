# SPDX-License-Identifier: Apache-2.0
"""Workers: they answer, say what they meet, and end."""

import os
import signal

import pytest

from detectron_libra.builders.benchmark import plan
from detectron_libra.builders.benchmark.crew import hired
from detectron_libra.builders.benchmark.plan import Contender, Order, Size
from detectron_libra.builders.benchmark.turns import measure
from detectron_libra.errors import LibraError, RunError, UsageError
from tests.builders.small import config


def order(impl=plan.OURS, **changes):
    cfg = config("retinanet", DEVICE="cpu", CPU__THREADS=1, **changes)
    return Order(cfg, Contender(impl, "test", "fp32"), Size(64, 64), 1, 3, 32)


def test_a_worker_that_dies_is_told_and_none_outlives_the_block():
    with hired([order(), order(plan.REFERENCE)]) as crew:
        assert all(worker.call("turn", 1) > 0 for worker in crew)
        os.kill(crew[0]._process.pid, signal.SIGKILL)
        with pytest.raises(RunError, match="ours test fp32: its process was ended by signal 9"):
            crew[0].call("turn", 1)
        assert crew[1]._process.is_alive()
    assert not any(worker._process.is_alive() for worker in crew)


def test_what_a_worker_meets_keeps_its_kind():
    wrong = order(RETINANET__CLASS_SPECIFIC_BBOX=True)
    with pytest.raises(UsageError, match=r"ours test fp32: RETINANET\.CLASS_SPECIFIC_BBOX"), hired([wrong]):
        pass
    with hired([order()]) as (worker,):
        with pytest.raises(LibraError, match="ours test fp32: AttributeError") as caught:
            worker.call("no_such_call")
        assert type(caught.value) is LibraError


def test_as_many_turns_as_asked_for_and_everything_about_each():
    lines = []
    found = measure([order(), order(plan.REFERENCE)], warm_ups=1, rounds=3, told=lines.append)
    assert [m.contender.impl for m in found] == [plan.OURS, plan.REFERENCE]
    for one in found:
        assert len(one.times.samples) == 3 and min(one.times.samples) > 0
        assert one.peak[0] > 0 and one.facts["threads"] == 1
        assert one.counts["detections"] <= one.counts["candidates"]
        assert sum(one.profile["shares"].values()) == pytest.approx(1)
    assert "round 3 of 3" in lines and "ours test fp32: 1 steps to warm up" in lines
