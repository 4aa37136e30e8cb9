# SPDX-License-Identifier: Apache-2.0
"""Results that come later are noted by the thread that asks, in order, and none is lost."""

import threading
from concurrent.futures import Future

import pytest

from detectron_libra.engine.later import Later


@pytest.fixture
def noted():
    return []


@pytest.fixture
def later(noted):
    thread = threading.get_ident()

    def note(iteration, result):
        assert threading.get_ident() == thread
        noted.append((iteration, result))

    return Later(note)


def done(result) -> Future:
    future: Future = Future()
    future.set_result(result)
    return future


def failed(error: BaseException) -> Future:
    future: Future = Future()
    future.set_exception(error)
    return future


def finish_soon(future: Future, result) -> None:
    threading.Timer(0.05, future.set_result, [result]).start()


def test_a_result_is_noted_at_once_and_a_promise_when_it_is_kept(later, noted):
    with later:
        later.take(1, lambda _: {"AP": 0.1})
        assert noted == [(1, {"AP": 0.1})]
        promise: Future = Future()
        later.take(2, lambda _: promise)
        later.collect()
        assert len(noted) == 1
        promise.set_result({"AP": 0.2})
        assert len(noted) == 1
        later.collect()
        assert noted[1:] == [(2, {"AP": 0.2})]


def test_the_end_waits_for_what_is_open(later, noted, caplog):
    caplog.set_level("INFO")
    promise: Future = Future()
    with later:
        later.take(2, lambda _: promise)
        finish_soon(promise, {"AP": 0.2})
    assert noted == [(2, {"AP": 0.2})]
    assert "waiting for what is measured at iteration 2" in caplog.text


def test_a_second_promise_waits_for_the_first(later, noted):
    first: Future = Future()
    with later:
        later.take(1, lambda _: first)
        finish_soon(first, {"AP": 0.1})
        later.take(2, lambda iteration: list(noted) == [(1, {"AP": 0.1})] and done({"AP": iteration}))
    assert [iteration for iteration, _ in noted] == [1, 2]


def test_a_failure_is_raised_where_it_is_looked_for(later):
    with later, pytest.raises(KeyError):
        later.take(1, lambda _: failed(KeyError("broken")))
        later.collect()


def test_a_failure_at_the_end_is_raised_there(later):
    with pytest.raises(KeyError), later:
        later.take(1, lambda _: failed(KeyError("broken")))


def test_a_failure_beside_another_end_is_told_and_the_rest_is_noted(later, noted, caplog):
    with pytest.raises(SystemExit), later:
        later.take(1, lambda _: failed(KeyError("broken")))
        later._waiting.append((2, done({"AP": 0.2})))
        raise SystemExit(143)
    assert noted == [(2, {"AP": 0.2})]
    assert "what was measured at iteration 1 failed: 'broken'" in caplog.text
