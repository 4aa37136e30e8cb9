# SPDX-License-Identifier: Apache-2.0
"""A training in a terminal that is closed, as when a connection breaks: it saves its work."""

import os
import pty
import select
import signal
import sys

from tests.tools.runs import ROOT


def start_in_a_terminal(words):
    """A tool as the only program of a new terminal; its process, and the terminal's other end."""
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(ROOT)
        os.environ["OMP_NUM_THREADS"] = "1"
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests themselves may run under nohup
        os.execv(sys.executable, [sys.executable, *map(str, words)])
    return process, terminal


def test_a_closed_terminal_costs_no_step(config, tmp_path):
    folder = tmp_path / "out/train/tiny_train/retinanet"
    words = ["tools/train_net.py", "--cfg", config, "--skip-test", "DATA.WORKERS", 1]
    process, terminal = start_in_a_terminal(
        [*words, "SOLVER.MAX_ITER", 90_000, "TRAIN.SNAPSHOT_ITERS", 90_000]
    )
    history = folder / "metrics.jsonl"
    while not history.exists() or history.read_text().count("\n") < 4:
        if select.select([terminal], [], [], 0.1)[0]:
            os.read(terminal, 65536)  # a full terminal would stop the training
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 129
    (saved,) = folder.glob("model_iter*.pt")
    assert int(saved.stem.removeprefix("model_iter")) >= 3
    lines = (folder / "log.txt").read_text()
    assert "stopped after iteration" in lines and "Traceback" not in lines
