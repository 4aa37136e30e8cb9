# SPDX-License-Identifier: Apache-2.0
"""load_pickle reads plain data of every protocol, and nothing else comes out of a file, whatever it says."""

import os
import pickle
import struct
import subprocess
import sys
from collections import OrderedDict, defaultdict

import numpy as np
import pytest

from detectron_libra.errors import InputError
from detectron_libra.weights.unpickle import load_pickle, read_data
from tests.weights import pickles

ARRAYS = {
    "w": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "half": np.array([1.5, -2.0], np.float16),
    "big_endian": np.array([[1, 2], [3, 4]], ">f8"),
    "fortran": np.asfortranarray(np.arange(6, dtype=np.int64).reshape(2, 3)),
    "none": np.zeros((0, 4), np.float32),
    "flag": np.array([True, False]),
    "bytes": np.array([0, 10, 39, 92, 255], np.uint8),
    "number": np.array(7, np.int32),
}
LARGE = np.random.default_rng(0).standard_normal((300, 1000)).astype(np.float32)  # beyond LONGEST_TEXT


def write(tmp_path, data: bytes):
    path = tmp_path / "weights.pkl"
    path.write_bytes(data)
    return path


def same(a, b) -> None:
    assert a.dtype == b.dtype and a.shape == b.shape
    assert a.tobytes() == b.tobytes()


def refused(data: bytes) -> str:
    with pytest.raises(InputError) as error:
        read_data(data, "weights.pkl")
    message = str(error.value)
    assert message.startswith("weights.pkl: ") and "\n" not in message
    return message


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol_of_python_3_gives_the_same_arrays(tmp_path, protocol):
    tree = {
        "blobs": OrderedDict(ARRAYS, large=LARGE),
        "cfg": "A: 1\n",
        "more": [1, -2.5, None, True, (b"x", 2**40)],
    }
    read = load_pickle(write(tmp_path, pickle.dumps(tree, protocol)))
    assert list(read["blobs"]) == [*ARRAYS, "large"] and type(read["blobs"]) is dict
    for name, array in {**ARRAYS, "large": LARGE}.items():
        same(read["blobs"][name], array)
    assert read["cfg"] == "A: 1\n" and read["more"] == tree["more"]


def test_files_of_python_2_give_the_same_arrays_and_texts(tmp_path):
    read = load_pickle(
        write(tmp_path, pickles.python2({"blobs": {**ARRAYS, "large": LARGE}, "cfg": "é" * 300}))
    )
    for name, array in {**ARRAYS, "large": LARGE}.items():
        same(read["blobs"][name], array)
    assert read["cfg"] == "é" * 300


def test_protocol_0_of_python_2_has_quoted_strings():
    assert read_data(b"(dp1\nS'a\\x00\\n\\'b'\np2\nI7\nsS\"it's\"\nF1.5\nsVk\\u00e9\nL12L\ns.", "f") == {
        "a\0\n'b": 7,
        "it's": 1.5,
        "ké": 12,
    }


def test_other_containers_and_scalars_come_as_plain_ones():
    tree = [defaultdict(list, a=[1]), OrderedDict(b=2), np.float64(0.1), np.dtype("f4"), np.int64(3)]
    for protocol in (2, 4):
        read = read_data(pickle.dumps(tree, protocol), "f")
        assert read == tree and type(read[0]) is dict and type(read[1]) is dict
        assert type(read[2]) is np.float64 and type(read[4]) is np.int64


def test_an_array_that_stands_twice_is_one(tmp_path):
    a = np.ones(3, np.float32)
    read = load_pickle(write(tmp_path, pickle.dumps({"x": a, "y": a}, 2)))
    assert read["x"] is read["y"]


def test_arrays_can_be_written_to_and_are_aligned(tmp_path):
    read = load_pickle(write(tmp_path, pickles.python2({"x": LARGE})))["x"]
    assert read.flags.writeable and read.flags.aligned and read.base is None


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("builtins", "eval"),
        ("__builtin__", "eval"),
        ("builtins", "getattr"),
        ("numpy", "load"),
        ("numpy.core.multiarray", "fromfile"),
        ("numpy", "core.multiarray.fromfile"),
        ("copyreg", "_reconstructor"),
        ("torch._utils", "_rebuild_tensor_v2"),
        ("detectron_libra.weights.pickled", "build_array"),
    ],
)
def test_every_other_global_is_refused_by_name(module, name):
    for data in (
        pickles.calls(module, name, "true"),
        b"\x80\x04" + b"".join(_stack_global(module, name)) + b".",
    ):
        assert f"{module}.{name}" in refused(data)


def _stack_global(module, name):
    for text in (module, name):
        yield pickle.SHORT_BINUNICODE + bytes([len(text)]) + text.encode()
    yield pickle.STACK_GLOBAL


def test_a_file_that_would_run_a_command_does_not(tmp_path):
    marker = tmp_path / "ran"
    refused(pickles.calls("os", "system", f"touch {marker}"))
    refused(pickles.calls("posix", "system", f"touch {marker}"))
    assert not marker.exists()


RECONSTRUCT = "cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
DTYPE = "cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R"


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("cnumpy\ndtype\nU\x02O8K\x00K\x01\x87R.", "no numbers"),
        ("cnumpy\ndtype\nU\x05f4,f4K\x00K\x01\x87R.", "no numbers"),
        ("cnumpy\ndtype\nU\x02V8K\x00K\x01\x87R.", "no numbers"),
        (DTYPE + "(K\x03U\x01<N(U\x01atU\x01bJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb.", "records"),
        (RECONSTRUCT + "(K\x01K\x02\x85" + DTYPE + "\x89U\x04abcdtb.", "more or fewer"),
        (RECONSTRUCT + "(K\x01J\xff\xff\xff\xff\x85" + DTYPE + "\x89U\x00tb.", "negative or huge"),
        (
            RECONSTRUCT + "(K\x01K\x00\x8a\x0a" + "\xff" * 9 + "\x7f\x86" + DTYPE + "\x89U\x00tb.",
            "negative or huge",
        ),
        (RECONSTRUCT + "(K\x01K\x01\x85" + DTYPE + "\x89]tb.", "no bytes"),
        (RECONSTRUCT + "(K\x01K\x01\x85N\x89U\x04abcdtb.", "type of numbers"),
        (RECONSTRUCT + ".", "unfinished"),
        ("cnumpy\nndarray\n.", "a function"),
        ("cnumpy\nndarray\n}U\x01aK\x01sb.", "gives a state"),
        ("cnumpy\nndarray\n).", "2 values"),
        ("cnumpy\nndarray\n)R.", "applies"),
        ("cnumpy\nndarray\n)\x81.", "operation"),
        ("ccollections\nOrderedDict\n)R}U\x01aK\x01sK\x01b.", "gives a state"),
        ("}((K\x01tK\x02u.", "key"),
        ("}\x8a\x10" + "\x01" * 16 + "K\x02s.", "huge number"),
        ("Pid\n.", "operation"),
        ("\x82\x01.", "operation"),
        ("c_codecs\nencode\nU\x01aU\x05utf-7\x86R.", "encoding"),
        ("K\x01K\x02e.", "go together"),
        ("]00.", "arguments"),
        ("N.N.", "follow"),
        ("N", "too early"),
    ],
)
def test_programs_that_build_anything_else_are_refused(program, reason):
    assert reason in refused(program.encode("latin-1"))


def test_bytes_are_counted_once_so_that_a_small_file_cannot_fill_the_memory():
    raw = pickle.BINSTRING + struct.pack("<i", 4000) + b"a" * 4000 + pickle.BINPUT + b"\x07"
    again = RECONSTRUCT.encode("latin-1") + b"(K\x01M\xe8\x03\x85" + DTYPE.encode("latin-1") + b"\x89h\x07tb"
    assert len(read_data(raw + b"0]" + again + b"a.", "f")) == 1
    assert "unfolds" in refused(raw + b"0](" + again * 50 + b"e.")


HUGE = {
    "bytes": b"\x8e" + b"\xff" * 7 + b"\x3f",
    "text": b"X\xff\xff\xff\x7f",
    "memory": b"Nr\xff\xff\xff\x7f.",
    "frame": b"\x80\x04\x95" + b"\xff" * 7 + b"\x3f",
    "bytearray": b"\x96" + b"\xff" * 7 + b"\x3f",
    "number": b"\x8b\xff\xff\xff\x7f",
    "nested": b"]" * 1 + b"(" * 200_000 + b"l" * 200_000 + b".",
    "tuples": b")" + b"".join(b"\x85" for _ in range(300_000)) + b".",
    "hash": b"}" + b")" + b"2\x86" * 200 + b"K\x01s.",
    "name": b")" + b"2\x86" * 200 + b"U\x01a\x93.",
    "code": b"cnumpy\ndtype\n)" + b"2\x86" * 200 + b"\x85R.",
    "walk": b")" + b"2\x86" * 200 + b".",
}


def test_small_files_take_neither_gigabytes_nor_long(tmp_path):
    """In a process of its own, with 600 MB of address space beyond what the imports take."""
    for name, data in HUGE.items():
        (tmp_path / name).write_bytes(data)
    program = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from detectron_libra.errors import InputError\n"
        "from detectron_libra.weights.unpickle import load_pickle\n"
        "used = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 600 * 2**20, used + 600 * 2**20))\n"
        "for path in sys.argv[1:]:\n"
        "    try:\n        load_pickle(path)\n        print('read', path)\n"
        "    except InputError as e:\n        print(e)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    names = [str(tmp_path / name) for name in HUGE]
    done = subprocess.run([sys.executable, "-c", program, *names], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(HUGE) + 1
    assert "memory" in done.stdout


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"hello world\n", "not a pickle"),
        (b"MODEL:\n  TYPE: retinanet\n", "not a pickle"),
        (b"PK\x03\x04" + bytes(100), "not a pickle"),
        (bytes(1000), "not a pickle"),
    ],
)
def test_files_of_another_kind_are_told_in_one_line(tmp_path, content, reason):
    path = write(tmp_path, content)
    with pytest.raises(InputError, match=reason) as error:
        load_pickle(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_missing_files_folders_and_pipes_are_told(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "none.pkl", tmp_path, tmp_path / "pipe", "\0"):
        with pytest.raises(InputError, match="no such file"):
            load_pickle(path)


def test_every_truncation_is_told(tmp_path):
    data = pickles.python2({"blobs": {"w": np.ones((2, 2), np.float32)}, "cfg": "A: 1"})
    for end in range(1, len(data)):
        refused(data[:end])
