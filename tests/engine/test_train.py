# SPDX-License-Identifier: Apache-2.0
"""The loop: a run that was killed, or asked to stop, goes on as if nothing had happened."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from detectron_libra.engine import checkpoint, weights_file
from detectron_libra.engine.signals import SIGNALS, StopFlag
from detectron_libra.errors import InputError, RunError
from tests.engine.toy import Data, run

ROOT = Path(__file__).resolve().parents[2]
CLOCK = ("images_per_s", "data_time", "time", "eta", "mem")


def history(folder):
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in CLOCK} for line in found]


def weights(folder):
    return weights_file.load_weights(folder / "model_final.safetensors")[0]


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    run(folder)
    torch.set_num_threads(threads)
    return folder


def start(folder, *options):
    """A real process that trains slowly, caught after a checkpoint and some steps more."""
    command = [sys.executable, "-m", "tests.engine.toy", str(folder), "--delay", "0.1", *options]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    metrics = folder / "metrics.jsonl"
    while not metrics.exists() or metrics.read_text().count("\n") < 8:
        assert process.poll() is None, "the run ended by itself"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return process


def test_after_kill_9_the_resumed_run_is_bit_equal(tmp_path, whole):
    process = start(tmp_path)
    process.kill()
    process.wait()
    assert checkpoint.latest(tmp_path).next_iteration < 10
    assert len(history(tmp_path)) > checkpoint.latest(tmp_path).next_iteration, "steps to be done again"
    run(tmp_path)
    assert history(tmp_path) == history(whole)
    assert same(weights(tmp_path), weights(whole))


@pytest.fixture
def hangup(request):
    """What SIGHUP does: as by default, or nothing, as under nohup, where the tests themselves may run."""
    before = signal.signal(signal.SIGHUP, getattr(request, "param", signal.SIG_DFL))
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("hangup")
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)]
)
def test_a_signal_saves_and_exits_with_its_code(tmp_path, whole, number, code):
    process = start(tmp_path)
    process.send_signal(number)
    assert process.wait(timeout=20) == code
    found = checkpoint.latest(tmp_path)
    assert found.next_iteration == len(history(tmp_path)), "no step is lost"
    assert not (tmp_path / "model_final.safetensors").exists()
    run(tmp_path)
    assert history(tmp_path) == history(whole)
    assert same(weights(tmp_path), weights(whole))


def test_a_second_signal_ends_at_once():
    script = (
        "import os, signal\n"
        "from detectron_libra.engine.signals import StopFlag\n"
        "with StopFlag() as stop:\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    assert stop and stop.exit_code == 130\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    raise AssertionError('still here')\n"
    )
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == 143


@pytest.mark.usefixtures("hangup")
def test_a_closed_terminal_says_so_more_than_once_and_ends_nothing_by_that():
    """The kernel sends SIGHUP, and a shell sends it again to its jobs."""
    with StopFlag() as stop:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGHUP)
        assert stop.exit_code == 129


@pytest.mark.parametrize("hangup", [signal.SIG_IGN], indirect=True)
def test_under_nohup_a_closed_terminal_stops_nothing(hangup):
    with StopFlag() as stop:
        os.kill(os.getpid(), signal.SIGHUP)
        assert not stop
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_handlers_are_put_back():
    before = [signal.getsignal(number) for number in SIGNALS]
    with StopFlag() as stop:
        assert not stop
        assert stop.exit_code == 0
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_files_of_a_finished_run(whole):
    assert sorted(os.listdir(whole)) == [
        "metrics.jsonl",
        "model_final.safetensors",
        "model_iter19.pt",
        "model_iter23.pt",
    ]


def test_resuming_a_finished_run_writes_the_same_weights_again(tmp_path, whole):
    run(tmp_path)
    (tmp_path / "model_final.safetensors").unlink()
    run(tmp_path)
    assert same(weights(tmp_path), weights(whole))


def test_evaluation_does_not_change_the_run_and_its_result_is_logged(tmp_path, whole):
    calls = []

    def evaluate(iteration):
        calls.append((iteration, checkpoint.path_of(tmp_path, iteration).exists()))
        torch.rand(5)
        return {"AP": 0.5}

    run(tmp_path, evaluate=evaluate, eval_period=8)
    assert calls == [(7, True), (15, True)]
    lines = history(tmp_path)
    assert [line for line in lines if "eval" in line] == [{"iter": i, "eval": {"AP": 0.5}} for i in (7, 15)]
    assert [line for line in lines if "eval" not in line] == history(whole)
    assert same(weights(tmp_path), weights(whole))


def test_an_evaluation_that_ends_later_is_logged_for_its_iteration(tmp_path, whole):
    with ThreadPoolExecutor(1) as thread:
        ends = threading.Event()

        def evaluate(iteration):
            return thread.submit(lambda: ends.wait(20) and {"AP": iteration})

        def on_checkpoint(path, iteration):
            if iteration == 15:
                ends.set()  # the first one is waited for before the second begins

        run(tmp_path, evaluate=evaluate, eval_period=8, on_checkpoint=on_checkpoint)
    lines = history(tmp_path)
    assert [line for line in lines if "eval" in line] == [{"iter": i, "eval": {"AP": i}} for i in (7, 15)]
    assert [line["iter"] for line in lines].index(15) < [line["iter"] for line in lines].index(7, 8)
    assert [line for line in lines if "eval" not in line] == history(whole)
    assert same(weights(tmp_path), weights(whole))


def test_an_evaluation_that_fails_later_ends_the_run_as_one_that_fails_at_once(tmp_path):
    def evaluate(iteration):
        future = Future()
        future.set_exception(InputError("annotations.json: cannot be read"))
        return future

    with pytest.raises(InputError, match="annotations"):
        run(tmp_path, evaluate=evaluate, eval_period=8)
    assert checkpoint.latest(tmp_path).next_iteration == 8
    assert not (tmp_path / "model_final.safetensors").exists()


def test_hook_sees_every_checkpoint(tmp_path):
    seen = []
    run(tmp_path, max_iter=12, on_checkpoint=lambda path, iteration: seen.append((path.name, iteration)))
    assert seen == [("model_iter4.pt", 4), ("model_iter9.pt", 9), ("model_iter11.pt", 11)]


def test_clipping_bounds_the_first_update_and_reports_the_norm_before_it(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    run(tmp_path / "a", max_iter=1)
    run(tmp_path / "b", max_iter=1, clip_grad_norm=1e-6)
    a, b = (history(tmp_path / name)[0] for name in "ab")
    assert a["grad_norm"] == b["grad_norm"] > 0.01
    assert not same(weights(tmp_path / "a"), weights(tmp_path / "b"))


def test_a_loss_with_weight_zero_is_not_learned(tmp_path):
    run(tmp_path, loss_weights={"cls": 0.0, "bbox": 0.0}, max_iter=3)
    assert history(tmp_path)[0]["loss"] == 0.0
    assert history(tmp_path)[0]["grad_norm"] == 0.0


def test_bf16_trains_and_losses_stay_float32(tmp_path):
    run(tmp_path, precision="bf16")
    lines = history(tmp_path)
    assert lines[-1]["loss"] < lines[0]["loss"]


def test_data_that_ends_early_is_an_error(tmp_path):
    with pytest.raises(RunError, match="the data ended before iteration 3"):
        run(tmp_path, loader=Data(0, 3))


def test_a_new_run_replaces_what_an_old_one_left(tmp_path, whole):
    checkpoint.path_of(tmp_path, 999).write_bytes(b"damaged, as an old one may be")
    (tmp_path / "model_iter999.pt.tmp12").write_bytes(b"")
    (tmp_path / "model_final.safetensors").write_bytes(b"old")
    (tmp_path / "metrics.jsonl").write_text('{"iter": 0, "loss": 5.0}\n')
    with pytest.raises(RunError, match="the data ended"):
        run_anew(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["metrics.jsonl", "model_iter4.pt"]
    assert history(tmp_path) == history(whole)[:6]


def run_anew(folder):
    """Trains without looking for a checkpoint, and stops after six steps."""
    found = checkpoint.latest
    checkpoint.latest = lambda _: None
    try:
        run(folder, loader=Data(0, 6))
    finally:
        checkpoint.latest = found
