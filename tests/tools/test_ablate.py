# SPDX-License-Identifier: Apache-2.0
"""An ablation as a process: runs that are ordinary trainings, one report, and going on after any stop."""

import json
import os
import shutil
import signal
from dataclasses import dataclass
from functools import partial

import pytest
import torch
from safetensors.torch import load_file

from detectron_libra.config import diff, load_config
from detectron_libra.engine.lock import locked
from tests.tools.runs import losses, refused, run, run_another, signal_self

FEW = ["SOLVER.MAX_ITER", 3, "SOLVER.STEPS", "[0]", "TRAIN.SNAPSHOT_ITERS", 2]
METRICS = {"AP", "AP50", "AP75", "APs", "APm", "APl", "per_class", "minutes"} | {
    f"{what}_{rate}" for what in ("concept", "box") for rate in ("precision", "recall")
}


@dataclass
class OnRun:
    """For ``after``: an action in one of the runs of the process, counted from 0."""

    number: int
    action: partial

    def __call__(self):
        if self.number == 0:
            self.action()
        self.number -= 1


def command(config, out, *words):
    return ["ablate.py", "--cfg", config, "--out", out, *words, *FEW]


@pytest.fixture(scope="module")
def done(trained, tmp_path_factory):
    """Baseline, sampling, and sampling with the loss, with two seeds: six runs of three iterations."""
    folder = tmp_path_factory.mktemp("ablation")
    file = folder / "mine.yaml"
    file.write_text(f"_BASE_: {trained.config}\nOUTPUT_DIR: {folder / 'out'}\n")
    out = folder / "out/ablation"
    finished = run("ablate.py", "--cfg", file, "--parts", "sampling,loss", "--cumulative", "--seeds", 2, *FEW)
    assert finished.code == 0, finished.err
    return file, out, finished


def read(out):
    return json.loads((out / "ablation.json").read_text())


def run_folder(out, name="baseline", seed=3):
    return out / f"runs/{name}/seed{seed}"


def weights_of(folder):
    return load_file(folder / "train/tiny_train/retinanet/model_final.safetensors")


def test_the_json_has_every_run_and_a_summary_per_combination(done):
    result = read(done[1])
    names = ["baseline", "sampling", "sampling+loss"]
    assert ["+".join(s["parts"]) or "baseline" for s in result["summary"]] == names
    assert [(r["parts"], r["seed"]) for r in result["runs"][:3]] == [([], 3), ([], 4), (["sampling"], 3)]
    assert len(result["runs"]) == 6
    for entry in result["runs"]:
        assert set(entry) == {"parts", "seed", "metrics", "minutes"} and entry["minutes"] > 0
        assert set(entry["metrics"]) == (METRICS - {"minutes"}) | {"concept_mAP"}
        assert list(entry["metrics"]["per_class"]) == ["circle", "square", "triangle"]
    for summary in result["summary"]:
        assert {"parts", "mean", "std", "delta", "ci95"} <= set(summary)
        assert all(set(summary[k]) == METRICS | {"concept_mAP"} for k in ("mean", "std", "delta", "ci95"))
    assert (
        result["about"]["iterations"] == 3
        and result["about"]["images"] == 5
        and result["about"]["dataset"] == "tiny_val"
    )


def test_the_numbers_are_those_of_the_runs(done):
    result = read(done[1])
    for entry in result["runs"]:
        folder = run_folder(done[1], "+".join(entry["parts"]) or "baseline", entry["seed"])
        tested = json.loads((folder / "test/tiny_val/retinanet/results.json").read_text())["tiny_val"]
        assert entry["metrics"]["AP"] == tested["box"]["AP"]
        assert entry["metrics"]["per_class"] == tested["box"]["per_class"]
        assert entry["metrics"]["concept_recall"] == tested["concept"]["recall"]
        assert entry["metrics"]["box_precision"] == tested["boxes_at_threshold"]["precision"]
    base, other = result["summary"][0], result["summary"][2]
    values = [r["metrics"]["AP"] for r in result["runs"] if r["parts"] == ["sampling", "loss"]]
    assert other["mean"]["AP"] == pytest.approx(sum(values) / 2)
    assert other["delta"]["AP"] == pytest.approx(other["mean"]["AP"] - base["mean"]["AP"])
    low, high = other["ci95"]["AP"]
    assert low <= high and base["delta"]["AP"] is None and base["ci95"]["AP"] is None
    assert other["ci95"]["minutes"] is None and other["delta"]["minutes"] is not None


def test_runs_differ_in_their_parts_and_share_seed_and_data(done):
    base, other = (
        load_config(run_folder(done[1], name) / "config.yaml") for name in ("baseline", "sampling+loss")
    )
    assert {line.split(":")[0] for line in diff(base, other)} == {
        "LIBRA.BALANCED_L1.ON",
        "LIBRA.IOU_SAMPLING.ON",
        "LIBRA.IOU_SAMPLING.NEGATIVES_PER_IM",
        "OUTPUT_DIR",
    }
    # the part that is not named stays as the file has it
    assert base.LIBRA.PYRAMID.ON and not base.LIBRA.BALANCED_L1.ON and base.RNG_SEED == 3


def test_a_run_is_an_ordinary_training(done, tmp_path):
    """train_net.py on the configuration that lies in its folder gives the same weights, bit for bit."""
    folder = run_folder(done[1], "sampling", 4)
    again = run("train_net.py", "--cfg", folder / "config.yaml", "--skip-test", "OUTPUT_DIR", tmp_path)
    assert again.code == 0, again.err
    mine, theirs = weights_of(folder), weights_of(tmp_path)
    assert mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_progress_and_table_are_told(done):
    lines = done[2].out
    assert "run 1 of 6: baseline, seed 3" in lines and "run 6 of 6: sampling+loss, seed 4" in lines
    assert "minutes so far, about" in lines
    table = (done[1] / "ablation.md").read_text()
    assert "| AP " in table and "AP circle" in table and "concept recall" in table and " ± " in table
    assert table in lines
    page = (done[1] / "ablation.html").read_text()
    assert "<table" in page and "sampling+loss" in page and "http://" not in page.replace("http-equiv", "")


def test_finished_runs_are_not_repeated(done):
    file, out, _ = done
    before = {p: p.stat().st_mtime_ns for p in out.glob("runs/*/seed*/train/*/*/model_final.safetensors")}
    again = run("ablate.py", "--cfg", file, "--parts", "sampling,loss", "--cumulative", "--seeds", 2, *FEW)
    assert again.code == 0 and "6 of them finished" in again.out and "json_stats" not in again.out
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_report_only_rebuilds_the_same_files_and_trains_nothing(done):
    out = done[1]
    before = {name: (out / name).read_bytes() for name in ("ablation.json", "ablation.md", "ablation.html")}
    for name in before:
        (out / name).unlink()
    for words in (["--out", out], ["--cfg", done[0]]):
        assert run("ablate.py", "--report-only", *words).code == 0
        assert {name: (out / name).read_bytes() for name in before} == before


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGKILL, -signal.SIGKILL),
        (signal.SIGTERM, 143),
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
    ],
)
def test_stopped_in_the_second_run_it_goes_on_with_that_one(trained, tmp_path, number, code):
    """The run of the baseline is finished then and stays; the one under way goes on, from its checkpoint if any."""
    file = tmp_path / "mine.yaml"
    file.write_text(f"_BASE_: {trained.config}\n")
    words = command(file, tmp_path / "out", "--parts", "weights=0.25:0.5", "--seeds", 1)
    stopped = run(*words, after=(1, OnRun(1, partial(signal_self, number))))
    assert stopped.code == code and "Traceback" not in stopped.err
    base, other = (run_folder(tmp_path / "out", name) for name in ("baseline", "weights=0.25"))
    assert (base / "run.json").exists() and not (other / "run.json").exists()
    saved = (other / "train/tiny_train/retinanet/model_iter1.pt").exists()
    assert saved == (number != signal.SIGKILL)
    finished = run(*words)
    assert finished.code == 0, finished.err
    assert "1 of them finished" in finished.out and "baseline, seed" not in finished.out
    assert f"iterations {2 if saved else 0} to 3" in finished.out
    assert [entry["parts"] for entry in read(tmp_path / "out")["runs"]] == [[], ["weights=0.25"]]
    whole = run(
        "train_net.py", "--cfg", other / "config.yaml", "--skip-test", "OUTPUT_DIR", tmp_path / "whole"
    )
    assert whole.code == 0
    assert losses(other / "train/tiny_train/retinanet") == losses(
        tmp_path / "whole/train/tiny_train/retinanet"
    )


def test_processes_share_the_runs_and_the_last_one_reports_all(trained, tmp_path):
    """The second one starts while the first is in the baseline: it takes the other run, reports it and says who has
    the baseline. The first finds nothing left to do after its run."""
    file, report = tmp_path / "mine.yaml", tmp_path / "report.json"
    file.write_text(f"_BASE_: {trained.config}\n")
    words = command(file, tmp_path / "out", "--parts", "weights=0.25:0.5", "--seeds", 1)
    first = run(*words, after=(1, OnRun(0, partial(run_another, report, *words))))
    assert first.code == 0, first.err
    number, code, told, error = json.loads(report.read_text())
    assert code == 0, error
    assert "run 2 of 2: weights=0.25, seed 3" in told and "run 1 of 2" not in told
    assert (
        f"left to other processes: baseline, seed 3 (process {number})" in told and "1 finished runs" in told
    )
    assert "run 1 of 2: baseline, seed 3" in first.out and "run 2 of 2" not in first.out
    assert [entry["parts"] for entry in read(tmp_path / "out")["runs"]] == [[], ["weights=0.25"]]


def test_a_run_that_a_training_of_its_own_has_is_left_to_it(trained, tmp_path):
    """train_net.py on the configuration of a run does the run, too; the others are done meanwhile."""
    file, out = tmp_path / "mine.yaml", tmp_path / "out"
    file.write_text(f"_BASE_: {trained.config}\n")
    folder = run_folder(out) / "train/tiny_train/retinanet"
    folder.mkdir(parents=True)
    with locked(folder):
        done = run(*command(file, out, "--parts", "weights=0.25:0.5", "--seeds", 1))
    assert done.code == 0, done.err
    assert f"left to other processes: baseline, seed 3 (process {os.getpid()})" in done.out
    assert [entry["parts"] for entry in read(out)["runs"]] == [["weights=0.25"]]


def test_a_changed_configuration_is_refused_with_the_difference(done):
    file, out, _ = done
    words = ["ablate.py", "--cfg", file, "--parts", "sampling,loss", "--cumulative", "--seeds", 2, *FEW]
    before = read(out)
    refused(run(*words, "SOLVER.BASE_LR", 0.02), 2, "SOLVER.BASE_LR: 0.01 -> 0.02", "baseline/seed3", "--out")
    refused(run(*words, "TEST.NMS", 0.4), 2, "TEST.NMS: 0.3 -> 0.4")
    refused(run(*words, "DATASETS.tiny_val.SHAPES.SEED", 5), 2, "DATASETS.tiny_val")
    assert run(*words, "LOG.PERIOD", 5).code == 0
    assert read(out) == before


def test_what_cannot_be_compared_is_refused_before_anything_is_trained(config, tmp_path):
    out = tmp_path / "none"
    for words, parts in (
        (["--parts", "sampling,piramid"], ["piramid", "pyramid"]),
        ([], ["--parts", "sampling"]),
        (["--parts", "loss", "--seeds", 0], ["--seeds 0"]),
        (["--parts", "loss", "TEST.DATASETS", "()"], ["TEST.DATASETS"]),
        (
            ["--parts", "loss", "TEST.DATASETS", "('tiny_val', 'tiny_train')"],
            ["TEST.DATASETS", "exactly one"],
        ),
        (["--parts", "weights=0.5"], ["LOSS.WEIGHTS.BBOX", "0.5"]),
        (
            ["--parts", "loss", "LIBRA.BALANCED_L1.ON", "False", "LOSS.BOX.KIND", "giou"],
            ["LOSS.BOX.KIND", "LIBRA.BALANCED_L1.ON True"],
        ),
    ):
        refused(run("ablate.py", "--cfg", config, "--out", out, *words), 2, *parts)
    refused(run("ablate.py", "--report-only"), 2, "--out")
    refused(run("ablate.py", "--report-only", "--out", out), 3, out, "no finished run")
    assert not out.exists()


def test_files_that_do_not_belong_together_exit_3(done, tmp_path):
    out = tmp_path / "copy"
    shutil.copytree(done[1], out)
    entry = run_folder(out) / "run.json"
    content = json.loads(entry.read_text())
    content["metrics"]["AP50"] += 0.1
    entry.write_text(json.dumps(content))
    refused(run("ablate.py", "--report-only", "--out", out), 3, entry, "AP50")
    entry.write_text('{"parts": []}')
    refused(run("ablate.py", "--report-only", "--out", out), 3, entry, "seed")
    entry.write_text("{")
    refused(run("ablate.py", "--report-only", "--out", out), 3, entry)
    entry.unlink()
    done_ = run("ablate.py", "--report-only", "--out", out)
    assert done_.code == 0 and len(read(out)["runs"]) == 5
