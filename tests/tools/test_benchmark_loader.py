# SPDX-License-Identifier: Apache-2.0
"""The rate of a loader by itself."""

import json

from tests.tools.runs import refused, run


def test_it_prints_a_line_with_the_rate_and_what_it_depends_on(config):
    words = ["benchmark_loader.py", "--cfg", config, "--batches", 3, "--rounds", 2]
    done = run(*words, "DATA.CACHE", "ram", "DATA.WORKERS", 1)
    assert done.code == 0 and done.err == "", done.err
    found = json.loads(done.out.splitlines()[-1])
    assert 0 < found["lowest"] <= found["images_per_s"] <= found["highest"]
    assert (found["workers"], found["cache"], found["images"], found["scales"]) == (1, "ram", 9, [64])
    assert found["reader"].startswith("pillow ") and found["cpu_ms_per_image"] is None
    alone = json.loads(run(*words, "DATA.WORKERS", 0).out.splitlines()[-1])
    assert alone["workers"] == 0 and alone["cpu_ms_per_image"] > 0


def test_what_cannot_be_is_refused(config):
    refused(run("benchmark_loader.py", "--cfg", config, "--rounds", 0), 2, "--rounds 0")
    refused(run("benchmark_loader.py", "--cfg", config, "TRAIN.DATASETS", "()"), 2, "TRAIN.DATASETS")
