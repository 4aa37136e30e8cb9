# SPDX-License-Identifier: Apache-2.0
"""Tools as processes on tiny generated shapes: real exit codes, signals and files, in a second or two each."""

import functools
import json
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml

from detectron_libra.engine.metrics import Metrics

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 60

#: A RetinaNet of three levels with 150,000 weights, 8 iterations of 2 images of 64 x 64 pixels.
TINY = {
    "MODEL": {
        "TYPE": "retinanet",
        "CONV_BODY": "FPN.add_fpn_ResNet50_conv5_body",
        "NUM_CLASSES": -1,
        "BOX_GEOMETRY": "continuous",
    },
    "RETINANET": {"RETINANET_ON": True, "NUM_CONVS": 1, "HEAD_NORM": "group", "INFERENCE_TH": 0.001},
    "LIBRA": {"BALANCED_L1": {"ON": True, "BETA": 0.11}, "PYRAMID": {"ON": True, "REFINE": "non_local"}},
    "LOSS": {"WEIGHTS": {"BBOX": 0.5}},
    "FPN": {
        "FPN_ON": True,
        "MULTILEVEL_RPN": True,
        "RPN_MIN_LEVEL": 3,
        "RPN_MAX_LEVEL": 5,
        "COARSEST_STRIDE": 32,
        "DIM": 16,
    },
    "RESNETS": {"STAGE_BLOCKS": [1, 1, 1, 1], "WIDTH": 8, "NORM": "batch"},
    "GROUP_NORM": {"NUM_GROUPS": 4},
    "DATASETS": {
        "tiny_train": {"SHAPES": {"IMAGES": 9, "SIZE": [64, 64], "MAX_OBJECTS": 3, "SEED": 1}},
        "tiny_val": {"SHAPES": {"IMAGES": 5, "SIZE": [64, 64], "MAX_OBJECTS": 3, "SEED": 2}},
    },
    "TRAIN": {
        "DATASETS": ["tiny_train"],
        "SCALES": [64],
        "MAX_SIZE": 64,
        "IMS_PER_BATCH": 2,
        "FREEZE_AT": 0,
        "SNAPSHOT_ITERS": 4,
    },
    "TEST": {"DATASETS": ["tiny_val"], "SCALE": 64, "MAX_SIZE": 64},
    "SOLVER": {"BASE_LR": 0.01, "MAX_ITER": 8, "STEPS": [0, 6], "WARM_UP_ITERS": 2},
    "LOG": {"PERIOD": 1},
    "DATA": {"WORKERS": 0},
    "CPU": {"THREADS": 1},
}


@dataclass(frozen=True)
class Done:
    """A process that has ended; ``code`` is negative after a signal that it did not handle."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Trained:
    """A finished run: its configuration file, output folder, and the process."""

    config: Path
    output: Path
    done: Done

    @property
    def folder(self) -> Path:
        return self.output / "train/tiny_train/retinanet"

    @property
    def tested(self) -> Path:
        return self.output / "test/tiny_val/retinanet"

    @property
    def weights(self) -> Path:
        return self.folder / "model_final.safetensors"

    @property
    def images(self) -> Path:
        return self.config.parent / "val/images"


def write_config(folder: Path) -> Path:
    """The tiny configuration, whose shapes and output lie in ``folder``."""
    values = json.loads(json.dumps(TINY))
    for name in ("train", "val"):
        values["DATASETS"][f"tiny_{name}"]["DIR"] = str(folder / name)
    values["OUTPUT_DIR"] = str(folder / "out")
    file = folder / "tiny.yaml"
    file.write_text(yaml.safe_dump(values))
    return file


def run_as_users_do(tool: str, *words) -> Done:
    """A tool started as a user types it."""
    command = [sys.executable, str(ROOT / "tools" / tool), *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, cwd=ROOT, env=environment)
    return Done(done.returncode, done.stdout, done.stderr)


def train_as_users_do(folder: Path) -> Trained:
    """One complete run."""
    config = write_config(folder)
    return Trained(config, folder / "out", run_as_users_do("train_net.py", "--cfg", config))


def run(
    tool: str,
    *words,
    after: tuple[int, Callable[[], None]] | None = None,
    before: Callable[[], None] | None = None,
) -> Done:
    """A tool in a process of its own, forked where everything is imported already.

    Args:
        tool: name of a file of tools/; words: its arguments.
        after: (iteration, function of a module) that is called in the process once that iteration is done.
        before: function of a module that is called in the process before the tool is.
    """
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder) / "out", Path(folder) / "err"
        texts = [str(w) for w in words]
        process = _context().Process(target=_child, args=(tool, texts, str(out), str(err), after, before))
        process.start()
        process.join(LIMIT_S)
        if process.exitcode is None:
            process.kill()
            raise TimeoutError(f"{tool} {texts}: still running\n{out.read_text()}\n{err.read_text()}")
        return Done(process.exitcode, out.read_text(), err.read_text())


def signal_self(number: int) -> None:
    """For ``after``: what `kill` does."""
    os.kill(os.getpid(), number)


def run_another(report: Path, *words) -> None:
    """For ``after``: a tool from start to end. ``report`` gets the number of this process and what ``Done`` has."""
    done = run_as_users_do(*words)
    report.write_text(json.dumps([os.getpid(), done.code, done.out, done.err]))


def kill_a_worker() -> None:
    """For ``after``: what the system does to a process that takes too much memory."""
    multiprocessing.active_children()[0].kill()


def refused(done: Done, code: int, *parts) -> None:
    """The process ended with ``code`` and one line that has every part, and no traceback."""
    assert done.code == code, (done.code, done.err)
    lines = done.err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), done.err
    assert "Traceback" not in done.out
    for part in parts:
        assert str(part) in lines[0], (part, lines[0])


def losses(folder: Path) -> dict[int, dict]:
    """Losses and gradient norm by iteration, from metrics.jsonl."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert len({line["iter"] for line in lines}) == len(lines)
    return {
        line["iter"]: {k: v for k, v in line.items() if "loss" in k or k == "grad_norm"} for line in lines
    }


@functools.cache
def _context():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.tools.runs", "detectron_libra.builders.predict"])
    return context


def _child(tool: str, words: list[str], out: str, err: str, after, before) -> None:
    for place, number in ((out, 1), (err, 2)):
        handle = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, number)
        os.close(handle)
    if after:
        _call_after(*after)
    if before:
        before()
    os.chdir(ROOT)
    os.environ["no_proxy"] = "127.0.0.1"  # where the servers of tests are
    sys.argv = [tool, *words]
    runpy.run_path(str(ROOT / "tools" / tool), run_name="__main__")


def _call_after(last: int, action: Callable[[], None]) -> None:
    step = Metrics.step

    def stepped(self, iteration, *args, **kwargs):
        step(self, iteration, *args, **kwargs)
        if iteration == last:
            action()

    Metrics.step = stepped
