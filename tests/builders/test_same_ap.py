# SPDX-License-Identifier: Apache-2.0
"""A way of computing changes AP by no more than another seed would: docs/results/same_ap.md, one seed of one line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIMIT_S = 1800
#: Enough to say that the detector works, and most that the AP of two runs may differ by: the table of the page has a
#: standard deviation over seeds of 0.02; the difference of two runs has that times the root of two, and this is three
#: times as much.
LEAST_AP50, MOST = 0.7, 0.085


@pytest.mark.slow
def test_the_compiled_operators_give_the_ap_of_plain_pytorch(tmp_path):
    config = tmp_path / "shapes.yaml"
    config.write_text(
        f"_BASE_: {ROOT / 'configs/ablation/same_ap_libra_shapes.yaml'}\n"
        "DATASETS:\n"
        f"  shapes_train: {{DIR: {tmp_path / 'data/train'}}}\n"
        f"  shapes_val: {{DIR: {tmp_path / 'data/val'}}}\n"
        f"OUTPUT_DIR: {tmp_path / 'out'}\n"
    )
    words = ["--cfg", str(config), "--parts", "OPS.BACKEND=compiled", "--seeds", "1"]
    command = [sys.executable, str(ROOT / "tools/ablate.py"), *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=LIMIT_S)
    assert done.returncode == 0, done.stderr[-2000:]
    runs = json.loads((tmp_path / "out/ablation/ablation.json").read_text())["runs"]
    assert [run["parts"] for run in runs] == [[], ["OPS.BACKEND=compiled"]]
    assert all(run["metrics"]["AP50"] > LEAST_AP50 for run in runs)
    assert abs(runs[0]["metrics"]["AP"] - runs[1]["metrics"]["AP"]) < MOST
