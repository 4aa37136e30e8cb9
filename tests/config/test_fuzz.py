# SPDX-License-Identifier: Apache-2.0
"""Whatever a YAML file holds: a configuration, or lines that say what is wrong with it."""

from pathlib import Path

import numpy as np
import pytest

from detectron_libra.config import load_config
from tests.fuzzing import fuzz, mutant

ROOT = Path(__file__).resolve().parents[2]
TOKENS = [
    *(b"!!python/object/apply:os.system ['true']", b"!!python/name:os.system", b"!!binary x", b"!!set {a}"),
    *(b"&a [*a, *a]", b"*a", b"<<: *a", b"? [1]\n: 2\n", b"- ", b": ", b"\t", b"%YAML 9.9\n---\n", b"---\n"),
    *(b"[" * 500, b"{" * 500, b"9" * 5000, b"0x" + b"f" * 300, b"1:2:3", b"2020-99-99", b".nan", b"-.inf"),
    *(
        b"\0",
        b"\xff\xfe",
        b"\xef\xbb\xbf",
        b"|\n",
        b">-\n",
        b"'",
        b'"\\x',
        b"__import__('os').system('true')",
    ),
]
#: Ten lists, each of ten times the one before: ten thousand million words where they are written out.
BOMB = b"A0: &a0 [x, x]\n" + b"".join(
    f"A{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 10)}]\n".encode() for k in range(1, 11)
)
SEEDS = [
    *((ROOT / "configs" / name).read_bytes() for name in ("quickstart/libra_retinanet_shapes.yaml",)),
    b"SOLVER:\n  BASE_LR: 0.01\n  STEPS: [0, 10]\nTRAIN:\n  SCALES: (600,)\n  DATASETS: ('a', 'b')\n",
    b"DATASETS: {a: {IM_DIR: x, ANN_FN: y}}\nMODEL: {TYPE: retinanet, NUM_CLASSES: 4}\n_BASE_: mutant.yaml\n",
]


def fuzz_yaml(folder, count, seed):
    rng, place = np.random.default_rng(seed), folder / "mutant.yaml"

    def read(data):
        place.write_bytes(data)
        load_config(place)

    return fuzz(read, lambda k: mutant(rng, SEEDS[k % len(SEEDS)], TOKENS), count)


def test_damaged_configurations(tmp_path):
    results = fuzz_yaml(tmp_path, 300, seed=0)
    assert results["read"] > 5 and results["refused"] > 100


@pytest.mark.parametrize(
    "key", [b"SOLVER:\n  STEPS: *a10\n", b"DATASETS: *a10\n", b"TRAIN: {DATASETS: *a10}\n"]
)
def test_lists_of_lists_of_lists_do_not_fill_the_memory(tmp_path, key):
    place = tmp_path / "bomb.yaml"

    def read(data):
        place.write_bytes(data)
        load_config(place)

    assert fuzz(read, [BOMB + key], 1)["refused"] == 1


@pytest.mark.slow
def test_ten_thousand_damaged_configurations(tmp_path):
    results = fuzz_yaml(tmp_path, 10_000, seed=1)
    print(dict(results))
    assert sum(results.values()) == 10_000
