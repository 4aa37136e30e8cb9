# SPDX-License-Identifier: Apache-2.0
"""Files of torch.save: the same tensors as PyTorch reads, nothing run, nothing allocated that is not there."""

import collections
import os
import pickle
import sys
import tracemalloc
import types
import zipfile

import pytest
import torch

from detectron_libra.errors import InputError
from detectron_libra.weights.inert import MOST_TUPLES, Placeholder
from detectron_libra.weights.torch_file import load_torch

FORMATS = pytest.mark.parametrize("as_zip", [True, False], ids=["zip", "before-1.6"])


def save(content, path, as_zip=True):
    torch.save(content, path, _use_new_zipfile_serialization=as_zip)
    return path


def save_foreign(content, path, as_zip=True):
    """With an object of a module in it that is gone afterwards."""
    module = types.ModuleType("framework_of_others")
    module.Buffer = type("Buffer", (dict,), {"__module__": module.__name__})
    sys.modules[module.__name__] = module
    try:
        buffer = module.Buffer(a=torch.ones(2))
        buffer.history = [1, 2]
        return save({**content, "buffer": buffer}, path, as_zip)
    finally:
        del sys.modules[module.__name__]


def state():
    base = torch.arange(24.0).view(4, 6)
    return collections.OrderedDict(
        whole=base,
        view=base[1:3, ::2],
        turned=base.t(),
        parameter=torch.nn.Parameter(torch.ones(3)),
        half=torch.tensor([1.5, -2.0], dtype=torch.float16),
        brain=torch.tensor([3.0], dtype=torch.bfloat16),
        double=torch.tensor(2.0**-60, dtype=torch.float64),
        counter=torch.tensor(7),
        flags=torch.tensor([True, False]),
        empty=torch.empty(0, 3),
    )


def equal(found, wanted):
    assert list(found) == list(wanted)
    for name, tensor in wanted.items():
        assert found[name].dtype == tensor.dtype and found[name].shape == tensor.shape
        assert torch.equal(found[name], tensor), name


@FORMATS
def test_tensors_are_those_that_were_saved(tmp_path, as_zip):
    equal(load_torch(save(state(), tmp_path / "a.pth", as_zip)), state())


@FORMATS
def test_objects_of_frameworks_become_placeholders_beside_the_same_tensors(tmp_path, as_zip):
    """torch.load(weights_only=True) refuses this file; the framework is not installed."""
    file = save_foreign({"state_dict": state(), "meta": {"CLASSES": ("a", "b")}}, tmp_path / "a.pth", as_zip)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(file, weights_only=True)
    found = load_torch(file)
    equal(found["state_dict"], state())
    assert found["meta"] == {"CLASSES": ("a", "b")} and isinstance(found["buffer"], Placeholder)
    assert "framework_of_others" not in sys.modules


class Call:
    """Pickled as a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@FORMATS
@pytest.mark.parametrize(
    "build",
    [
        lambda mark: Call(os.system, f"touch {mark}"),
        lambda mark: Call(eval, f"open({str(mark)!r}, 'w')"),
        lambda mark: Call(getattr, Call(__import__, "os"), "system"),
        lambda mark: Call(torch.save, torch.ones(1), str(mark)),
        lambda mark: Call(torch.hub.download_url_to_file, f"file://{mark.parent}/a.pth", str(mark)),
    ],
    ids=["system", "eval", "getattr", "torch.save", "torch.hub"],
)
def test_nothing_that_a_file_asks_for_is_run(tmp_path, as_zip, build):
    mark = tmp_path / "mark"
    found = load_torch(save({"a": torch.ones(1), "b": build(mark)}, tmp_path / "a.pth", as_zip))
    assert isinstance(found["b"], Placeholder) and found["a"].tolist() == [1]
    assert not mark.exists()


def pickled(path, content):
    """A zip file as torch writes it, around a pickle."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", content)
        archive.writestr("a/data/0", b"\0" * 16)
    return path


STORAGE = b"(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\x000X\3\0\0\0cpuK\4tQ"


def rebuilt(numbers: bytes) -> bytes:
    return b"\x80\2}X\1\0\0\0actorch._utils\n_rebuild_tensor_v2\n(" + STORAGE + numbers + b"\x89}tRs."


def test_a_handmade_file_is_read(tmp_path):
    """The attacks below differ from it in their numbers only."""
    assert load_torch(pickled(tmp_path / "a.pth", rebuilt(b"K\0K\4\x85K\1\x85")))["a"].tolist() == [0] * 4


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (rebuilt(b"K\1K\4\x85K\1\x85"), "4 numbers in a storage of 4"),
        (rebuilt(b"K\0K\5\x85K\1\x85"), "5 numbers"),
        (rebuilt(b"K\0J\xff\xff\xff\x7f\x85K\0\x85"), "2147483647 numbers"),
        (rebuilt(b"K\0J\xff\xff\xff\xff\x85K\1\x85"), "no whole numbers"),
        (rebuilt(b"K\0K\2K\2\x86K\1\x85"), "without a storage"),
        (rebuilt(b"K\0K\4\x85K\1\x85").replace(b"K\4tQ", b"J\0\0\0\x7ftQ"), "cut off"),
        (rebuilt(b"K\0K\4\x85K\1\x85").replace(b"X\1\0\0\x000X", b"X\3\0\0\0a\nbX"), "storage a b"),
        (b"\x80\2}r\xff\xff\xff\x7f.", "memo"),
        (b"\x80\2})" + b"\x85" * (MOST_TUPLES + 1) + b"K\1s.", "tuples"),
        (b"\x80\4\x95\0\0\0\0\0\0\0\x7f}.", "cannot be read"),
        (b"\x80\2}K\1ctorch._utils\n_rebuild_tensor_v2\n)\x81s.", "cannot be read"),
        (rebuilt(b"K\0(" + 65 * b"K\1" + b"t(" + 65 * b"K\1" + b"t"), "65 dimensions"),
        (b"\x80\5\x96\0\0\0\0\0\0\0\x7f.", "cut off"),
        (b"\x80\2K\1.", "no dict"),
        (b"\x80\2cbuiltins\ndict\nK\1b.", "cannot be read"),
        (b"\x80\2ctorch\nFloatStorage\n}(X\1\0\0\0dK\1ubK\1s.", "pickle"),
    ],
)
def test_impossible_files_are_one_line_and_little_memory(tmp_path, content, word):
    """Also a memo index, a length or a depth that a small file claims must cost nothing."""
    file = pickled(tmp_path / "a.pth", content)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=word) as caught:
            load_torch(file)
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()
    assert str(caught.value).startswith(str(file)) and "\n" not in str(caught.value)


@pytest.mark.parametrize("key", [b"K\1" + b"\x85" * 20_000, b"\x8b\0\x10\0\0" + b"\x7f" * 4096, b"N"])
def test_keys_of_storages_that_are_no_texts_in_an_old_file(tmp_path, key):
    """They name the storages in the last pickle of the file, and have to be turned into texts."""
    parts = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, {}]
    content = b"".join(pickle.dumps(part, 2) for part in parts) + b"\x80\2](" + key + b"e."
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.pth: damaged"):
        load_torch(tmp_path / "a.pth")


@FORMATS
def test_a_file_that_is_cut_off_anywhere_is_an_input_error(tmp_path, as_zip):
    content = save_foreign({"a": torch.ones(50)}, tmp_path / "a.pth", as_zip).read_bytes()
    for length in range(0, len(content) - 1, 7):
        (tmp_path / "b.pth").write_bytes(content[:length])
        with pytest.raises(InputError, match="b.pth"):
            load_torch(tmp_path / "b.pth")


def test_other_files_are_named_for_what_is_wrong(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        load_torch(tmp_path / "missing.pth")
    with pytest.raises(InputError, match="directory"):
        load_torch(tmp_path)
    for content in (b"", b"text, no weights\n", b"PK\3\4 and no more", bytes(range(256))):
        (tmp_path / "a.pth").write_bytes(content)
        with pytest.raises(InputError, match="damaged, or no file of torch.save"):
            load_torch(tmp_path / "a.pth")


def test_programs_and_compressed_archives_are_refused(tmp_path):
    """Expanding could fill the memory, and torch.save never compresses."""
    with zipfile.ZipFile(pickled(tmp_path / "program.pt", pickle.dumps({}, 2)), "a") as archive:
        archive.writestr("a/constants.pkl", pickle.dumps((), 2))
    with pytest.raises(InputError, match="TorchScript"):
        load_torch(tmp_path / "program.pt")
    with zipfile.ZipFile(tmp_path / "a.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", pickle.dumps({}, 2))
        archive.writestr("a/data/0", b"\0" * 10_000_000)
    with pytest.raises(InputError, match="compressed"):
        load_torch(tmp_path / "a.pth")


def test_tensors_that_share_a_storage_read_it_once(tmp_path):
    """Otherwise a small file with many views of one storage would fill the memory."""
    base = torch.ones(1000)
    file = save_foreign({f"v{i}": base[i:] for i in range(100)}, tmp_path / "a.pth")
    found = load_torch(file)
    assert len({found[f"v{i}"].untyped_storage().data_ptr() for i in range(100)}) == 1
