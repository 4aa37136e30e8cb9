# SPDX-License-Identifier: Apache-2.0
"""Damaged files of torch.save in their thousands: tensors or an InputError of one line, never anything else."""

import io
import random
import zipfile
from collections.abc import Mapping

import pytest
import torch

from detectron_libra.errors import InputError
from detectron_libra.weights.torch_file import load_torch
from tests.weights.test_torch_file import pickled, save_foreign


def mutated(content: bytes, draw: random.Random) -> bytes:
    """Some bytes replaced, removed, repeated or moved, most of them where the pickle is."""
    data = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        place = draw.randrange(len(data))
        length = draw.choice([1, 1, 1, 2, 8, 40])
        kind = draw.randrange(4)
        if kind == 0:
            data[place : place + length] = draw.randbytes(length)
        elif kind == 1:
            del data[place : place + length]
        elif kind == 2:
            data[place:place] = data[place : place + length]
        else:
            data[place] = draw.choice(b"(.0123456789KJMNRbtsuaeQ]})\x80\x81\x85\x86\x87\x93\x94rqjhcX")
        if not data:
            break
    return bytes(data)


def torture(folder, count):
    file, draw, read = folder / "b.pth", random.Random(5), 0
    tensors = {"a": torch.ones(2, 2), "n": {"b": torch.zeros(1)}}
    whole, old = (save_foreign(tensors, folder / "a.pth", as_zip).read_bytes() for as_zip in (True, False))
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        inner = next(archive.read(name) for name in archive.namelist() if name.endswith("data.pkl"))
    for i in range(count):
        if i % 3:
            file.write_bytes(mutated(old if i % 3 == 1 else whole, draw))
        else:
            pickled(file, mutated(inner, draw))
        try:
            assert isinstance(load_torch(file), Mapping)
            read += 1
        except InputError as e:
            assert "\n" not in str(e)
    return read


@pytest.mark.filterwarnings("ignore:invalid escape sequence")
def test_some_thousand_damaged_files(tmp_path):
    assert 0 < torture(tmp_path, 2000) < 2000


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:invalid escape sequence")
def test_a_hundred_thousand_damaged_files(tmp_path):
    assert torture(tmp_path, 100_000)
