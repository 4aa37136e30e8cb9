# SPDX-License-Identifier: Apache-2.0
"""Files of ``torch.save``, with objects of any framework in them: tensors come out, nothing of theirs runs."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from detectron_libra.errors import InputError
from detectron_libra.weights.inert import Damaged, Storage, TensorPlace, pickles, unpickle

ZIP = b"PK\x03\x04"
MAGIC = 0x1950A86A20F9469CFC6C  # first pickle of a file that PyTorch before 1.6 wrote
COUNT_BYTES = 8  # before the numbers of each storage in such a file
#: Dicts inside dicts whose tensors are made: {"state_dict": {name: tensor}} has two.
DEPTH = 3
LONGEST_REASON = 120


def load_torch(path: str | os.PathLike) -> Mapping:
    """The dict that a ``.pth`` or ``.pt`` file holds.

    Args:
        path: written by ``torch.save``, in the zip format or in that of PyTorch before 1.6.

    Returns:
        The dict. Where PyTorch refuses it, since it names classes of a framework, tensors (on the CPU) of its outer
        three levels, and placeholders in the place of objects.

    Raises:
        InputError: missing, damaged, no such file, or no dict in it.
    """
    path = Path(path)
    try:
        with path.open("rb") as f:
            is_zip = f.read(len(ZIP)) == ZIP
        content = _read_zip(path) if is_zip else _read_legacy(path.read_bytes())
    except OSError as e:
        raise InputError(f"{path}: cannot be read ({e.strerror or e})") from e
    except Exception as e:  # bytes that are hostile or damaged can end in any of them
        reason = str(e) if isinstance(e, Damaged) else f"it cannot be read ({type(e).__name__})"
        reason = " ".join(reason.split())[:LONGEST_REASON]  # it may quote the file
        raise InputError(f"{path}: damaged, or no file of torch.save: {reason}; fetch or save it anew") from e
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: holds no dict of tensors; save the model's state_dict()")
    return content


def _read_zip(path: Path) -> object:
    """PyTorch's own safe reader where it takes the file: it does, but for objects of frameworks."""
    with zipfile.ZipFile(path) as archive:
        names = _records(archive)
        content = archive.read(names["data.pkl"])
        next(pickles(content))
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except Exception:  # whatever it refuses it for: the reader below finds the words
            tree, storages = unpickle(content)
            return Maker(storages, _zip_storages(archive, names, storages)).made(tree)


def _records(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Entries by their name below the archive's folder, all of them as large as they say."""
    names = {info.filename.partition("/")[2]: info for info in archive.infolist()}
    size = sum(info.file_size for info in names.values())
    if "constants.pkl" in names:
        raise Damaged("it is a TorchScript program; save the model's state_dict()")
    if any(info.compress_type != zipfile.ZIP_STORED for info in names.values()):
        raise Damaged("it is compressed, which torch.save never does")
    if archive.fp is None or size > os.fstat(archive.fp.fileno()).st_size:
        raise Damaged("its parts are larger than the file")
    if "data.pkl" not in names:
        raise Damaged("a zip file without data.pkl")
    if "byteorder" in names and archive.read(names["byteorder"]) != b"little":
        raise Damaged("its numbers are in big-endian order")
    return names


def _zip_storages(
    archive: zipfile.ZipFile, names: Mapping[str, zipfile.ZipInfo], storages: Mapping[str, Storage]
) -> Callable[[str], bytes | memoryview]:
    """The bytes of a storage by its key."""
    for key, storage in storages.items():
        info = names.get(f"data/{key}")
        if info is None or info.file_size < storage.count * storage.dtype.itemsize:
            raise Damaged(f"storage {key} is cut off or missing")
    return lambda key: archive.read(names[f"data/{key}"])


def _read_legacy(content: bytes) -> object:
    """Magic number, version, system, the object, keys of the storages; then the storages in this order.

    Not ``torch.load``, which allocates what such a file claims before it reads.
    """
    parts = pickles(content)
    begin, end = next(parts)
    if unpickle(content[begin:end])[0] != MAGIC:
        raise Damaged("neither of the two formats")
    next(parts)
    _, (begin, end), keys_place = next(parts), next(parts), next(parts)
    tree, storages = unpickle(content[begin:end])
    keys, _ = unpickle(content[slice(*keys_place)])
    places = _legacy_places(keys, storages, keys_place[1], content)
    return Maker(storages, lambda key: memoryview(content)[places[key] :]).made(tree)


def _legacy_places(
    keys: object, storages: Mapping[str, Storage], place: int, content: bytes
) -> dict[str, int]:
    """Where the numbers of each storage begin."""
    places: dict[str, int] = {}
    for key in map(str, keys if isinstance(keys, list) else ()):
        storage = storages.get(key)
        if storage is None or int.from_bytes(content[place : place + COUNT_BYTES], "little") != storage.count:
            raise Damaged(f"storage {key} has another size than its tensors say")
        places[key] = place + COUNT_BYTES
        place = places[key] + storage.count * storage.dtype.itemsize
        if place > len(content):
            raise Damaged(f"storage {key} is cut off")
    if set(storages) - set(places):
        raise Damaged("storages are missing")
    return places


class Maker:
    """Tensors in the place of ``TensorPlace``; each storage is read once, however many tensors share it.

    Args:
        storages: by key; read: key to bytes that begin with the storage's numbers.
    """

    def __init__(self, storages: Mapping[str, Storage], read: Callable[[str], bytes | memoryview]):
        self.storages, self.read = storages, read
        self.numbers: dict[str, Tensor] = {}
        self.dicts: dict[int, dict] = {}

    def made(self, tree: object, depth: int = DEPTH) -> object:
        """``tree`` with tensors in its outer ``depth`` levels of dicts."""
        if isinstance(tree, TensorPlace):
            storage = tree.storage
            assert isinstance(storage, Storage)
            return torch.as_strided(
                self._numbers_of(storage.key), tree.size, tree.stride, storage.start + tree.offset
            )
        if not isinstance(tree, dict) or depth == 0:
            return tree
        if id(tree) not in self.dicts:
            self.dicts[id(tree)] = {key: self.made(value, depth - 1) for key, value in tree.items()}
        return self.dicts[id(tree)]

    def _numbers_of(self, key: str) -> Tensor:
        if key not in self.numbers:
            storage = self.storages[key]
            size = storage.count * storage.dtype.itemsize
            raw = bytearray(memoryview(self.read(key))[:size])
            self.numbers[key] = (
                torch.frombuffer(raw, dtype=storage.dtype) if raw else torch.empty(0, dtype=storage.dtype)
            )
        return self.numbers[key]
