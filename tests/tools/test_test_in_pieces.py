# SPDX-License-Identifier: Apache-2.0
"""Ranges of images, and processes side by side: the same results as one process, and one error for all of them."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time

import pytest

from tests.tools.runs import ROOT, refused, run

FILES = ("results.json", "bbox_tiny_val_results.json", "detections.pkl")


def folder_of(tmp_path):
    return tmp_path / "out/test/tiny_val/retinanet"


def boxes_of(file):
    content = pickle.loads(file.read_bytes())  # our own
    return [[[list(row) for row in image] for image in images] for images in content["all_boxes"]]


def test_a_range_writes_its_detections_and_nothing_else(trained, config, tmp_path):
    words = ["--cfg", config, "TEST.WEIGHTS", trained.weights]
    done = run("test_net.py", "--range", 1, 4, *words)
    assert done.code == 0 and done.err == "", done.err
    folder = folder_of(tmp_path)
    assert [p.name for p in folder.iterdir()] == ["detection_range_1_4.pkl"]
    whole = boxes_of(trained.tested / "detections.pkl")
    assert boxes_of(folder / "detection_range_1_4.pkl") == [images[1:4] for images in whole]
    assert "im_detect: range [2, 4] of 5: 4/4 " in done.out


@pytest.mark.parametrize("limits", [(3, 6), (2, 2), (-1, 2), (4, 1)])
def test_a_range_that_the_set_has_not_exits_2_with_the_number_of_images(trained, config, limits):
    done = run("test_net.py", "--range", *limits, "--cfg", config, "TEST.WEIGHTS", trained.weights)
    refused(done, 2, f"--range {limits[0]} {limits[1]}", "tiny_val", "5 images")


def test_a_range_takes_one_set_and_two_numbers(trained, config):
    words = ["--cfg", config, "TEST.WEIGHTS", trained.weights]
    two = "('tiny_val', 'tiny_train')"
    refused(run("test_net.py", "--range", 0, 2, *words, "TEST.DATASETS", two), 2, "TEST.DATASETS", "one")
    refused(run("test_net.py", *words, "--range", 0), 2, "--range")
    refused(run("test_net.py", *words, "--range", "a", "b"), 2, "--range", "'a'")
    refused(run("test_net.py", *words, "--range", 0, 2, "--multi-gpu-testing"), 2, "--multi-gpu-testing")


def test_processes_side_by_side_give_what_one_gives(trained, config, tmp_path):
    # five images in two processes: three and two; older pieces are not taken for new ones
    folder = folder_of(tmp_path)
    folder.mkdir(parents=True)
    (folder / "detection_range_0_2.pkl").write_bytes(b"of another test")
    words = ["--multi-gpu-testing", "--cfg", config, "TEST.WEIGHTS", trained.weights, "NUM_GPUS", 2]
    done = run("test_net.py", *words)
    assert done.code == 0, done.err
    for name in FILES[:2]:
        assert (folder / name).read_bytes() == (trained.tested / name).read_bytes(), name
    assert boxes_of(folder / FILES[2]) == boxes_of(trained.tested / FILES[2])
    pieces = {p.name for p in folder.glob("detection_range_*")}
    ranges = {
        f"detection_range_{limits}.{ending}" for limits in ("0_3", "3_5") for ending in ("pkl", "stdout")
    }
    assert pieces == ranges | {"detection_range_config.yaml"}
    assert "im_detect: range [4, 5] of 5: 5/5 " in (folder / "detection_range_3_5.stdout").read_text()


def test_a_process_that_fails_exits_4_with_what_it_said_last(trained, config, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for file in sorted(trained.images.iterdir()):
        (images / file.name).write_bytes(file.read_bytes())
    last = sorted(images.iterdir())[-1]
    last.write_bytes(last.read_bytes()[:700])  # its header is whole, its pixels are not
    entry = json.dumps({"IM_DIR": str(images), "ANN_FN": str(trained.config.parent / "val/instances.json")})
    # The check before a test would find it too.
    words = ["TEST.WEIGHTS", trained.weights, "NUM_GPUS", 2, "DATASETS.tiny_val", entry, "DATA.CHECK", "off"]
    done = run("test_net.py", "--multi-gpu-testing", "--cfg", config, *words)
    refused(done, 4, "detection_range_3_5.stdout", "ended with code 3", last)
    assert not (folder_of(tmp_path) / "results.json").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_ends_every_process(trained, config, tmp_path, number, code):
    words = ["--multi-gpu-testing", "--cfg", config, "TEST.WEIGHTS", trained.weights, "NUM_GPUS", 2]
    command = [sys.executable, str(ROOT / "tools/test_net.py"), *map(str, words)]
    parent = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        children = wait_until(lambda: children_of(parent.pid, 2))
        parent.send_signal(number)
        out, err = parent.communicate(timeout=30)
    finally:
        parent.kill()
    assert parent.returncode == code and "Traceback" not in err + out, err
    assert not any(is_alive(child) for child in children)


def test_the_training_tests_side_by_side_too(trained, config, tmp_path):
    words = [
        "--multi-gpu-testing",
        "--cfg",
        config,
        "NUM_GPUS",
        2,
        "SOLVER.MAX_ITER",
        1,
        "SOLVER.STEPS",
        "[0]",
    ]
    done = run("train_net.py", *words)
    assert done.code == 0, done.err
    assert len(list(folder_of(tmp_path).glob("detection_range_*.pkl"))) == 2
    assert (folder_of(tmp_path) / "results.json").exists()


def wait_until(look, limit_s=30.0):
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(0.05)
    raise TimeoutError


def children_of(pid: int, count: int) -> list[int]:
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True).stdout
    found = [int(word) for word in listed.split()]
    return found if len(found) == count else []


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
