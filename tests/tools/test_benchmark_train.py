# SPDX-License-Identifier: Apache-2.0
"""tools/benchmark_train.py as users call it, on a tiny detector."""

import importlib.util
import json
import subprocess
import sys

import pytest

from tests.tools.runs import ROOT, Done, refused, run

TOOL = "benchmark_train.py"
#: A RetinaNet that torchvision has a counterpart for.
PLAIN = {
    "RESNETS.WIDTH": "64",
    "RETINANET.NUM_CONVS": "4",
    "RETINANET.HEAD_NORM": "none",
    "FPN.RPN_MAX_LEVEL": "7",
    "FPN.EXTRA_CONV_LEVELS": "True",
}
SHARES = {"data", "backbone", "fpn", "heads", "matching", "losses", "optimizer", "postprocess", "other"}
KEYS = {"impl", "mode", "precision", "images_per_s", "step_s", "peak_bytes", "shares"}


def measure(*words):
    """The tool as users call it; its workers may need long on a busy machine."""
    command = [sys.executable, str(ROOT / "tools" / TOOL), "--quick", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def measured(trained, tmp_path_factory):
    """One run with a peer, both precisions, and all files."""
    folder = tmp_path_factory.mktemp("benchmark")
    words = ["--cfg", trained.config, "--peer", "torchvision", "--precision", "bf16,fp32", "--mode", "train"]
    files = ["--json", folder / "new" / "result.json", "--trace", folder / "trace.json"]
    installed = importlib.util.find_spec("torchvision") is not None
    plain = [word for pair in PLAIN.items() for word in pair] if installed else []
    done = measure(*words, *files, "--threads", "1", *plain)
    assert done.code == 0, done.err
    return done, json.loads((folder / "new" / "result.json").read_text()), folder


def test_rows_of_every_contender(measured):
    _, content, _ = measured
    assert set(content) == {"env", "rows", "ratios"}
    peer = {row["impl"] for row in content["rows"]} - {"ours"}
    assert len(peer) == 1 and peer <= {"torchvision", "reference"}
    for impl in ("ours", *peer):
        rows = [
            (r["mode"], r["precision"])
            for r in content["rows"]
            if r["impl"] == impl and r["data"] == "generated"
        ]
        assert rows == [("train", "fp32"), ("train", "bf16")]
    for row in content["rows"]:
        assert set(row) >= KEYS and set(row["shares"]) == SHARES
        assert sum(row["shares"].values()) == pytest.approx(1) and min(row["shares"].values()) >= 0
        assert row["images_per_s"] == pytest.approx(row["batch"] / row["step_s"])
        assert row["peak_bytes"] > 0 and row["threads"] == 1 and len(row["samples_s"]) == 2


def test_ratios_of_what_was_measured(measured):
    done, content, _ = measured
    names = [(r["mode"], r["ours"], r["peer_precision"]) for r in content["ratios"]]
    pairs = [("fp32", "fp32"), ("bf16", "fp32"), ("bf16", "bf16")]
    assert sorted(names) == sorted(("train", *pair) for pair in pairs)
    steps = {
        (r["impl"], r["mode"], r["precision"]): r["samples_s"]
        for r in content["rows"]
        if r["data"] == "generated"
    }
    for ratio in content["ratios"]:
        mine = steps["ours", ratio["mode"], ratio["ours"]]
        theirs = steps[ratio["peer"], ratio["mode"], ratio["peer_precision"]]
        assert ratio["pairs"] == [b / a for a, b in zip(mine, theirs, strict=True)]
        low, high = ratio["speed_quartiles"]
        assert low <= ratio["speed"] <= high
        assert (
            f"| {ratio['mode']:5} | {ratio['ours']} | {ratio['peer']} {ratio['peer_precision']}" in done.out
        )


def test_a_peer_that_is_not_there_is_told(measured):
    done, content, _ = measured
    told = "compared with the project's own reference backend"
    missing = importlib.util.find_spec("torchvision") is None
    assert (told in done.err) == (told in done.out) == missing
    assert any(told in note for note in content["env"]["notes"]) == missing


def test_the_trace_has_the_parts(measured):
    *_, folder = measured
    events = json.loads((folder / "trace.json").read_text())["traceEvents"]
    names = {event.get("name") for event in events}
    assert names >= {
        "part: step",
        "part: backbone",
        "part: fpn",
        "part: head",
        "part: losses",
        "part: optimizer",
    }


@pytest.mark.parametrize("mode", ["train", "test"])
def test_with_the_data_of_the_configuration(config, tmp_path, mode):
    file = tmp_path / "result.json"
    done = measure("--cfg", config, "--mode", mode, "--data", "--json", file, "DATA.WORKERS", "1")
    assert done.code == 0, done.err
    content = json.loads(file.read_text())
    assert [r["data"] for r in content["rows"]] == ["generated", "loader"]
    assert content["rows"][0]["shares"]["data"] < 0.02 and content["rows"][1]["image_size"] is None
    assert content["rows"][1]["parts_s"]["data"] > content["rows"][0]["parts_s"]["data"]
    assert not any("nothing waits for data" in note for note in content["env"]["notes"])
    assert f"| ours (its loader) | {mode}" in done.out


def test_ours_alone(config, tmp_path):
    file = tmp_path / "result.json"
    done = measure("--cfg", config, "--mode", "test", "--image-size", "40x70", "--json", file)
    assert done.code == 0, done.err
    content = json.loads(file.read_text())
    assert content["ratios"] == [] and content["env"]["peer"] is None
    assert [(r["impl"], r["mode"], r["precision"]) for r in content["rows"]] == [("ours", "test", "fp32")]
    assert content["rows"][0]["image_size"] == [40, 70] and content["rows"][0]["padded_size"] == [64, 96]
    assert "nothing waits for data" in done.out


def test_other_values_take_part_under_their_own_name(config, tmp_path):
    """And are compared with ours in the same precision: what a key costs or gains."""
    file, text = tmp_path / "result.json", "CHANNELS_LAST False CPU.FLUSH_DENORMAL False"
    done = measure(
        "--cfg", config, "--mode", "train", "--versus", text, "--precision", "fp32,bf16", "--json", file
    )
    assert done.code == 0, done.err
    content = json.loads(file.read_text())
    assert [r["impl"] for r in content["rows"]] == ["ours", "ours", text, text]
    assert "CHANNELS_LAST False" in content["rows"][2]["settings"]
    assert [(r["ours"], r["peer"], r["peer_precision"], r["headline"]) for r in content["ratios"]] == [
        ("fp32", text, "fp32", False),
        ("bf16", text, "bf16", False),
    ]


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("--versus", "LIBRA.PYRAMID.ON"), ("--versus", "no pairs of KEY and VALUE")),
        (("--versus", "NO.SUCH 1"), ("NO.SUCH",)),
        (("--precision", "fp32,fp8"), ("--precision", "'fp8' is not one of fp32, bf16")),
        (("--mode", ""), ("--mode", "'' is not one of train, test")),
        (("--image-size", "320"), ("--image-size", "'320' is no HEIGHTxWIDTH")),
        (("--boxes", "0"), ("--boxes", "'0' is no whole number from 1 on")),
        (("--peer", "detectron2"), ("--peer", "detectron2")),
        (("--peer-tuned",), ("--peer-tuned", "--peer torchvision")),
        (("--score-thresh", "2"), ("RETINANET.INFERENCE_TH", "2.0")),
        (("--json", "."), ("--json .: cannot be written",)),
        (("MODEL.NO_SUCH_KEY", "1"), ("MODEL.NO_SUCH_KEY",)),
    ],
)
def test_wrong_words_are_usage_errors(config, words, parts):
    done = run(TOOL, "--cfg", config, *words)
    assert done.code == 2, done.err
    for part in parts:
        assert part in done.err


def test_what_a_contender_meets_is_one_line_and_its_exit_code(config):
    done = measure("--cfg", config, "--mode", "test", "--data", "TEST.DATASETS", "['no_such_set']")
    refused(done, 2, "ours test fp32 with its loader", "no_such_set")
