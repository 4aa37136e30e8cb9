# SPDX-License-Identifier: Apache-2.0
"""Clocks, floors and memory."""

import time

import pytest
import torch

from detectron_libra.benchmarks import contenders, floor, measure
from detectron_libra.benchmarks.floor import Machine
from detectron_libra.benchmarks.memory import peak_extra_bytes
from detectron_libra.benchmarks.peer import torchvision


def test_quartiles_and_median():
    times = measure.Times([5.0, 1.0, 2.0, 4.0, 3.0])
    assert times.median == 3 and times.spread == pytest.approx(2 / 3)
    assert measure.quantile([1.0, 2.0], 0.5) == 1.5


def test_contenders_take_turns_after_at_least_eight_calls():
    calls = []
    slow = {name: (lambda n=name: (calls.append(n), time.sleep(0.006))) for name in ("a", "b")}
    times = measure.in_turns(slow, "cpu", budget_s=0.03)
    assert calls[:16] == ["a"] * 8 + ["b"] * 8
    assert calls[16:20] == ["a", "b", "a", "b"]
    assert all(len(t.samples) >= measure.FEWEST and t.median >= 0.006 for t in times.values())


def test_fast_calls_are_timed_many_at_once():
    count = [0]

    def tick():
        count[0] += 1

    times = measure.in_turns({"tick": tick}, "cpu", budget_s=0.02)["tick"]
    assert count[0] > 100 * len(times.samples)
    assert times.median < 1e-4


def test_who_does_not_fit_the_time_is_left_out_ours_last():
    count = [0]

    def slow():
        count[0] += 1
        time.sleep(0.02)

    for allowance, names in ((60, ["ours", "eager"]), (0.2, ["ours"]), (0.05, [])):
        times = measure.in_turns({"ours": slow, "eager": slow}, "cpu", budget_s=0.01, allowance_s=allowance)
        assert list(times) == names
        if not names:
            assert count[0] < 3
        count[0] = 0


def test_the_floor_is_the_longer_of_bytes_and_arithmetic():
    machine = Machine(copy=10.0, copy_in_cache=1.0, flops=100.0)
    assert machine.floor(20) == 2.0
    assert machine.floor(20, 1000) == 10.0


def test_a_machine_has_rates():
    machine = floor.measure_machine("cpu", quick=True)
    assert machine.copy > 1e8 and machine.copy_in_cache > 1e8 and machine.flops > 1e8


def test_peak_memory_counts_what_lives_at_once():
    x = torch.randn(1000, 1000)

    def one_after_the_other():
        for _ in range(10):
            y = x + 1
        return y

    assert peak_extra_bytes(lambda: None, "cpu") == 0
    assert peak_extra_bytes(one_after_the_other, "cpu") == pytest.approx(8e6, rel=0.01)
    assert peak_extra_bytes(lambda: [x + 1 for _ in range(3)], "cpu") == pytest.approx(12e6, rel=0.01)


def test_a_time_limit_ends_what_it_holds():
    with pytest.raises(TimeoutError), contenders.time_limit(0.05):
        time.sleep(5)
    with contenders.time_limit(5):
        pass


def test_a_missing_peer_says_why():
    ops, text = torchvision()
    assert text.startswith("torchvision")
    assert (ops is None) == ("cannot" in text or "has no" in text)
