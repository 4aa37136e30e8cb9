# SPDX-License-Identifier: Apache-2.0
"""Whatever the bytes of a pickle are: data comes out, or an error of one line; never anything else, nor much memory."""

import pickle
import resource
from collections import OrderedDict, defaultdict

import numpy as np
import pytest

from detectron_libra.errors import InputError
from detectron_libra.weights.detectron import from_tree
from detectron_libra.weights.unpickle import read_data
from tests.weights import pickles
from tests.weights.test_unpickle import ARRAYS

RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
DTYPE = b"cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R"
SEEDS = [
    pickles.python2({"blobs": ARRAYS, "cfg": "x" * 300}),
    pickle.dumps({"blobs": ARRAYS, "cfg": "x" * 300, "n": [np.float64(1), (1, 2)]}, 2),
    pickle.dumps({"blobs": OrderedDict(ARRAYS), "d": defaultdict(list), "n": [np.float64(1), 2**70, -1]}, 4),
    pickle.dumps({"blobs": ARRAYS, "n": [1.5, None, "a"]}, 0),
    pickle.dumps({"blobs": ARRAYS, "n": [bytearray(b"a"), "a"]}, 5),
]
#: Operations to put anywhere: calls, globals, marks, states.
TOKENS = [bytes([i]) for i in range(256)] + [
    RECONSTRUCT,
    DTYPE,
    b"cos\nsystem\n",
    b"cnumpy\nndarray\n",
    b"U\x02f4",
    b"R",
    b"b",
    b"(",
    b"t",
    b"2",
]


def mutant(rng: np.random.Generator, seeds: list[bytes]) -> bytes:
    """A seed with bytes changed, cut out, doubled, or operations put in."""
    data = bytearray(seeds[rng.integers(len(seeds))])
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(len(data) + 1))
        kind = rng.integers(8)
        if kind in (0, 5, 6, 7):
            data[at : at + 1] = bytes([rng.integers(256)])
        elif kind == 1:
            data[at:at] = TOKENS[rng.integers(len(TOKENS))]
        elif kind == 2:
            del data[at : at + int(rng.integers(1, 30))]
        elif kind == 3:
            length = int(rng.integers(1, 60))
            data[at:at] = data[at : at + length]
        else:
            del data[at:]
            data += TOKENS[rng.integers(len(TOKENS))] + b"."
    return bytes(data)


def assert_plain(value: object, seen: set[int]) -> None:
    """Independent of require_plain: exact types, by recursion."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if type(value) is dict:
        for key, part in value.items():
            assert isinstance(key, str | bytes | int | float | None)
            assert_plain(part, seen)
    elif type(value) in (list, tuple):
        for part in value:
            assert_plain(part, seen)
    elif type(value) is np.ndarray or isinstance(value, np.generic):
        assert value.dtype.kind in "biufc"
    else:
        assert type(value) in (str, bytes, int, float, bool, type(None)) or isinstance(value, np.dtype)


def fuzz(count: int, seed: int) -> int:
    """Reads mutants; returns how many came out as data."""
    rng = np.random.default_rng(seed)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    read = 0
    for _ in range(count):
        data = mutant(rng, SEEDS)
        try:
            assert_plain(read_data(data, "mutant.pkl"), set())
            read += 1
        except InputError as e:
            assert "\n" not in str(e)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024
    return read


def test_mutated_files_give_data_or_one_line():
    assert 200 < fuzz(4000, seed=0) < 3800


def test_mutated_weights_of_detectron_give_weights_or_one_line():
    """Beyond the pickle: names that are cut, shapes and types that do not fit, a cfg with wrong tags."""
    blobs = {
        "conv1_w": np.ones((2, 3)),
        "conv_rpn_w": np.ones((1, 1, 3, 3), np.float32),
        "libra.n": np.array(2),
    }
    blobs |= {"res5_0_branch2c_w": np.ones(1, np.float32), "cls_score_w_momentum": np.ones(2, np.float16)}
    cfg = "A: !!python/tuple [1, 2]\nB: !!python/object/new:utils.collections.AttrDict {dictitems: {C: 1}}\n"
    seeds = [pickles.python2({"blobs": blobs, "cfg": cfg}), pickle.dumps(blobs, 2)]
    rng = np.random.default_rng(2)
    read = 0
    for _ in range(2000):
        try:
            from_tree(read_data(mutant(rng, seeds), "mutant.pkl"), "mutant.pkl")
            read += 1
        except InputError as e:
            assert str(e).startswith("mutant.pkl: ") and "\n" not in str(e)
    assert 50 < read < 1950


@pytest.mark.slow
def test_a_hundred_thousand_mutated_files():
    assert fuzz(100_000, seed=1) > 1000
