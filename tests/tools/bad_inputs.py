# SPDX-License-Identifier: Apache-2.0
"""Generated faulty data sets, and one short training with its evaluation on each of them."""

import json
import math
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.tools.runs import ROOT, Done, run

QUICKSTART = ROOT / "configs/quickstart/libra_retinanet_shapes.yaml"
SHORT = {
    "TRAIN.DATASETS": "('bad_train',)",
    "TEST.DATASETS": "('bad_val',)",
    "MODEL.NUM_CLASSES": "-1",
    "SOLVER.MAX_ITER": "4",
    "TRAIN.SCALES": "(96,)",
    "TEST.SCALE": "96",
    "TRAIN.IMS_PER_BATCH": "2",
}


@dataclass(frozen=True)
class Cases:
    """The folder of the generated sets, and what users expect of each."""

    folder: Path
    expected: dict[str, dict]

    def train(self, name: str, output: Path) -> Done:
        """A short training and its evaluation; a broken checkpoint is trained from on the sound set."""
        case = self.expected.get(name, {})
        root = self.folder / ("control_good" if "path" in case else name)
        words = [w for pair in SHORT.items() for w in pair]
        words += ["DATASETS", declare(root), "OUTPUT_DIR", str(output)]
        if "path" in case:
            words += ["TRAIN.WEIGHTS", str(self.folder / case["path"])]
        return run("train_net.py", "--cfg", QUICKSTART, *words)

    def faults(self, name: str, output: Path) -> list[str]:
        """In what a training on one case is not as users expect; none where all is well."""
        case, done = self.expected[name], self.train(name, output)
        forbidden = case.get("must_not_exist")
        if forbidden and (self.folder / forbidden).exists():
            return [f"{forbidden} exists"]
        outcome = "error" if done.code else "skip" if "dropped" in done.out else "ok"
        if outcome not in (case["expect"], *case["also_ok"]):
            return [f"{outcome} where {case['expect']} is expected: {done.err}"]
        return refusal_faults(case, done, output) if done.code else run_faults(case, done, output)


def generate(tool: Path, folder: Path) -> Cases:
    """Every case of make_bad_inputs.py."""
    subprocess.run([sys.executable, str(tool), str(folder)], check=True, capture_output=True)
    return Cases(folder, json.loads((folder / "expectations.json").read_text())["cases"])


def declare(root: Path) -> str:
    """The value of DATASETS for the set below ``root``."""
    entries = {
        f"bad_{split}": {
            "IM_DIR": str(root / "images"),
            "ANN_FN": str(root / f"annotations/instances_{split}.json"),
        }
        for split in ("train", "val")
    }
    return json.dumps(entries)


def refusal_faults(case: dict, done: Done, output: Path) -> list[str]:
    """The rules: exit code 3, one line with the words of the case, no traceback, no weights."""
    found = [] if done.code == 3 else [f"exit code {done.code}"]
    if done.err.count("\n") != 1 or not done.err.startswith("error: "):
        found.append(f"not one line: {done.err}")
    if "Traceback" in done.out + done.err:
        found.append("a traceback")
    found += [
        f"no {w!r} in {done.err}" for w in case["message_contains"] if w.lower() not in done.err.lower()
    ]
    found += [f"{path} was written" for path in output.rglob("model_*")]
    return found


def run_faults(case: dict, done: Done, output: Path) -> list[str]:
    """The rules: finite losses, weights and results, the words of the case in the log, everything counted."""
    found = [f"no {w!r} in the log" for w in case["warning_contains"] if w.lower() not in done.out.lower()]
    (metrics,) = output.rglob("metrics.jsonl")
    losses = [json.loads(line) for line in metrics.read_text().splitlines()]
    numbers = [value for line in losses for key, value in line.items() if "loss" in key]
    if not numbers or not all(map(math.isfinite, numbers)):
        found.append(f"losses {numbers}")
    for name in ("model_final.safetensors", "results.json"):
        found += [] if len(list(output.rglob(name))) == 1 else [f"no {name}"]
    if "images" in case and f"; {case['images']} images, " not in done.out:
        found.append(f"not {case['images']} images: {done.out}")
    dropped = re.search(r"dropped (\d+) of", done.out)
    if dropped and int(dropped[1]) != case.get("dropped_annotations", int(dropped[1])):
        found.append(f"{dropped[0]}")
    return found
