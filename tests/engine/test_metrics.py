# SPDX-License-Identifier: Apache-2.0
"""What a run reports: medians as in Detectron, a file that reads as one run, and no way for it to stop the run."""

import json
import logging
from statistics import median

import pytest
import torch

from detectron_libra.engine.jsonl import JsonLines
from detectron_libra.engine.metrics import Metrics, Window
from tests.engine.toy import run


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_median_over_the_last_twenty_values():
    window, values = Window(), [float((7 * i) % 31) for i in range(33)]
    for i, value in enumerate(values):
        window.add({"loss": torch.tensor(value) if i % 2 else value})
        if i % 10 == 0:
            window.medians()
    assert window.medians() == {"loss": median(values[-20:])}
    other = Window()
    other.load(window.state())
    assert other.medians() == window.medians()


def test_window_does_not_keep_the_graph():
    loss = torch.ones((), requires_grad=True) * 2
    window = Window()
    window.add({"loss": loss})
    assert not next(iter(window._values["loss"])).requires_grad


def test_a_line_every_period_and_at_the_end_with_raw_and_weighted_losses(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        run(tmp_path, max_iter=12, log_period=5)
    found = lines(tmp_path)
    assert [line["iter"] for line in found] == [0, 5, 10, 11]
    first = found[0]
    assert first["loss_bbox"] == 0.5 * first["raw_loss_bbox"]
    assert first["loss_cls"] == first["raw_loss_cls"]
    assert abs(first["loss"] - first["loss_bbox"] - first["loss_cls"]) < 1e-6
    assert first["positives"] == 3.0
    for name in ("lr", "images_per_s", "data_time", "time", "eta", "mb_qsize", "mem", "grad_norm"):
        assert name in first
    stats = [r.message for r in caplog.records if r.name == "detectron_libra.json_stats"]
    assert len(stats) == 4
    assert json.loads(stats[0].removeprefix("json_stats: "))["iter"] == 0
    assert any("iter 12/12" in r.message and "images/s" in r.message for r in caplog.records)


def test_pace_is_that_of_the_last_steps(tmp_path):
    metrics = Metrics(
        tmp_path / "metrics.jsonl", start_iteration=0, max_iter=100, period=40, device=torch.device("cpu")
    )
    for i in range(41):
        slow = 9.0 if i == 0 else 0.5
        metrics.step(i, 0.1, {"loss": 1.0}, images=8, seconds=slow, waited=0.1)
    metrics.close()
    last = lines(tmp_path)[-1]
    assert [last["images_per_s"], last["data_time"], last["time"]] == pytest.approx([16.0, 0.2, 0.5])
    assert last["eta"] == "0:00:29"


def test_lines_after_the_checkpoint_and_half_lines_are_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"iter": i}) + "\n" for i in range(8)) + '{"iter": 8, "lo')
    JsonLines(path, 5).append({"iter": 5, "loss": float("nan")})
    assert lines(tmp_path) == [{"iter": i} for i in range(5)] + [{"iter": 5, "loss": None}]
    JsonLines(path, 0)
    assert path.read_text() == ""


def test_a_full_disk_is_told_once_and_does_not_stop_the_run(caplog):
    file = JsonLines("/dev/full", 0)
    for i in range(3):
        file.append({"iter": i})
    assert caplog.text.count("/dev/full: cannot be written (No space left on device)") == 1
