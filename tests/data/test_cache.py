# SPDX-License-Identifier: Apache-2.0
"""Decoded images that are kept: the same batches, within the budget, nothing stale or half written, no run stopped."""

import errno
import logging
import multiprocessing
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from detectron_libra.data import cache, cache_disk, cache_ram, images
from detectron_libra.data.cache import GIB
from detectron_libra.data.cache_disk import HEADER, DiskCache, make_room
from detectron_libra.data.cache_ram import RamCache, shared_bytes
from detectron_libra.data.caching import CacheSettings
from detectron_libra.data.coco import load_coco
from detectron_libra.data.loader import build_train_loader
from detectron_libra.errors import InputError
from tests.data.coco_files import coco, write, write_image
from tests.data.test_loader import SETTINGS, same

LARGE = 2**24
ONE = 3 * 48 * 64


@pytest.fixture(params=["ram", "disk"])
def kept(request, tmp_path):
    (tmp_path / "cache").mkdir()
    return CacheSettings(request.param, LARGE, tmp_path / "cache")


@pytest.fixture
def dataset(tmp_path):
    """Six JPEGs, wide and tall, whose largest scale reads them at a half and whose smallest at a quarter."""
    content = coco(6, height=96, width=128)
    folder, file = write(tmp_path, content)
    for image in content["images"]:
        place = Path(folder) / image["file_name"]
        Image.open(place).save(place, "JPEG", quality=95)
    return load_coco("set", folder, file, extent=1.0)


def train(dataset, kept=None, workers=0, **options):
    settings = {"scales": (24, 48), "flip_x": True, "aspect_grouping": True, "seed": 3, "max_iter": 24}
    settings |= {"cache": kept} if kept else {}
    return build_train_loader([dataset], **{**SETTINGS, **settings, "workers": workers, **options})


def counted(monkeypatch):
    """How often an image is decoded in this process."""
    calls = []

    def read(file, **options):
        calls.append(file)
        return images.read_image(file, **options)

    monkeypatch.setattr(cache, "read_image", read)
    return calls


@pytest.mark.parametrize("in_float", [False, True])
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_have_the_same_bits_with_a_cache_and_when_it_is_found_again(dataset, kept, workers, in_float):
    plain = list(train(dataset, resize_in_float=in_float))
    for _ in range(2):
        batches = list(train(dataset, kept, workers, resize_in_float=in_float))
        assert len(batches) == 24 and all(map(same, plain, batches))
    late = list(train(dataset, kept, workers, resize_in_float=in_float, start_iteration=7))
    assert all(map(same, plain[7:], late))


def test_each_image_is_decoded_once_per_fraction(dataset, kept, monkeypatch):
    calls = counted(monkeypatch)
    list(train(dataset, kept))
    assert len(calls) == 12
    list(train(dataset, kept))
    assert len(calls) == (24 if kept.mode == "ram" else 12)


def test_workers_share_what_one_of_them_has_decoded(dataset, kept):
    """Two rounds of a loader that goes on: in the second no worker decodes any more."""
    loader = train(dataset, kept, workers=2, scales=(48,), max_iter=60)
    batches = iter(loader)
    for _ in range(20):
        next(batches)
    for record in dataset.records:  # only the names stay: what is read from them now would be an error
        status, other = os.stat(record.file), Path(f"{record.file}.new")
        other.write_bytes(b"x" * status.st_size)
        os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
        os.replace(other, record.file)  # at once: a worker may be looking at it
    assert sum(1 for _ in batches) == 40
    assert loader._cache.kept == 6


def test_the_budget_holds_and_the_log_says_how_many_fit(dataset, kept, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    calls = counted(monkeypatch)
    list(train(dataset, replace(kept, capacity=2 * (ONE + HEADER.size)), scales=(48,)))
    assert "6 images" in caplog.text and "about 2 fit" in caplog.text
    assert caplog.text.count("after 2 images were added; the others are decoded every time") == 1
    assert len(calls) == 2 + 4 * 8
    if kept.mode == "disk":
        assert sum(f.stat().st_size for f in kept.folder.iterdir()) <= 2 * (ONE + HEADER.size)


def test_without_a_cache_nothing_is_announced(dataset, caplog):
    caplog.set_level(logging.INFO)
    assert train(dataset)._cache is None and "CACHE" not in caplog.text


def test_a_changed_file_is_decoded_again(dataset, kept):
    loader = train(dataset, kept, scales=(48,))
    list(loader)
    for k, record in enumerate(dataset.records):
        write_image(Path(record.file), record.height, record.width, 50 + k, format="JPEG")
    changed = list(loader)
    assert all(map(same, changed, train(dataset, scales=(48,))))
    assert all(map(same, changed, train(dataset, kept, scales=(48,))))


def test_a_removed_file_is_the_error_that_it_is_without_a_cache(dataset, kept):
    loader = train(dataset, kept)
    list(loader)
    os.remove(dataset.records[0].file)
    with pytest.raises(InputError, match=r"img_0.png: no such image file"):
        list(loader)


def test_a_png_is_kept_whole_where_a_jpeg_would_be_reduced(tmp_path, kept, monkeypatch):
    data = load_coco("set", *write(tmp_path, coco(2, height=96, width=128)), extent=1.0)
    calls = counted(monkeypatch)
    loader = train(data, kept, scales=(24,))
    assert all(map(same, list(train(data, scales=(24,))), list(loader)))
    assert len(calls) == 2 and loader._cache.kept == 2


def entry(folder):
    return next(iter(sorted(folder.glob("*.pixels"))))


@pytest.mark.parametrize(
    "damage",
    [
        lambda b: b[: len(b) // 2],
        lambda b: b"",
        lambda b: b + b"x",
        lambda b: b[:40] + bytes([b[40] ^ 1]) + b[41:],
        lambda b: b[:8] + b"\xff\xff\xff\xff" + b[12:],
        lambda b: b"\0" * len(b),
    ],
    ids=["half", "empty", "longer", "a bit", "height", "zero"],
)
def test_a_damaged_entry_is_not_believed_and_written_anew(dataset, tmp_path, damage, monkeypatch):
    folder = tmp_path / "cache"
    folder.mkdir()
    kept = CacheSettings("disk", LARGE, folder)
    plain = list(train(dataset, kept, scales=(48,)))
    good = entry(folder).read_bytes()
    entry(folder).write_bytes(damage(good))
    calls = counted(monkeypatch)
    assert all(map(same, plain, train(dataset, kept, scales=(48,))))
    assert len(calls) == 1 and entry(folder).read_bytes() == good


def fill(folder, file, go):
    """A process that writes entries without end."""
    torch.set_num_threads(1)
    go.set()
    store = DiskCache(folder, GIB, 0)
    key = cache.key_of(0, file, None, (400, 600), "pillow")
    image = torch.full((400, 600, 3), 7, dtype=torch.uint8).permute(2, 0, 1)
    while True:
        store._keep(key, image)
        store._counts[cache.USED] = 0


def test_a_writer_that_is_killed_leaves_no_half_entry(tmp_path):
    file, folder = tmp_path / "a.jpg", tmp_path / "cache"
    folder.mkdir()
    write_image(file, 400, 600)
    context = multiprocessing.get_context("fork")
    for k in range(20):
        go = context.Event()
        process = context.Process(target=fill, args=(folder, str(file), go), daemon=True)
        process.start()
        go.wait(10)
        time.sleep(0.002 * k)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        for path in folder.glob("*.pixels"):
            assert cache_disk._pixels(bytearray(path.read_bytes())) is not None
    assert [*folder.glob("*.pixels")]


def test_a_full_disk_stops_the_cache_with_one_warning_and_not_the_run(dataset, tmp_path, monkeypatch, caplog):
    folder = tmp_path / "cache"
    folder.mkdir()
    plain = list(train(dataset))

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(cache_disk.os, "replace", full)
    batches = list(train(dataset, CacheSettings("disk", LARGE, folder), workers=2))
    assert all(map(same, plain, batches))
    assert caplog.text.count("No space left on device") == 1 and not [*folder.iterdir()]


def test_room_is_made_by_removing_the_oldest_of_others(tmp_path):
    for k in range(6):
        path = tmp_path / f"{k}.pixels"
        path.write_bytes(b"x" * 100)
        os.utime(path, (k, k))
    (tmp_path / "9.pixels.tmp77").write_bytes(b"half")
    os.utime(tmp_path / "9.pixels.tmp77", (0, 0))
    (tmp_path / "somebody.else").write_bytes(b"x" * 1000)
    assert make_room(tmp_path, 1000, 400, []) == 600
    own = ["0.pixels", "5.pixels"]
    assert make_room(tmp_path, 700, 400, own) == 500
    left = {p.name for p in tmp_path.iterdir()}
    assert left == {"0.pixels", "2.pixels", "3.pixels", "4.pixels", "5.pixels", "somebody.else"}
    assert make_room(tmp_path, 300, 4000, own) == 200


def test_the_name_of_an_entry_tells_everything_that_its_pixels_depend_on(tmp_path):
    write_image(tmp_path / "a.jpg", 48, 64)
    key = cache.key_of(0, str(tmp_path / "a.jpg"), None, (48, 64), "pillow")
    others = [
        replace(key, **{name: value})
        for name, value in (("file", "b"), ("changed_ns", 1), ("length", 1), ("size", (64, 48)), ("part", 2))
    ]
    names = {cache_disk.file_name(k) for k in [key, *others]}
    assert len(names) == 6 and cache_disk.file_name(replace(key, index=5)) in names


def double(values, table):
    table.mul_(2)
    values.put(int(table[0]))


@pytest.mark.parametrize(("platform", "method"), [("linux", "fork"), ("darwin", "spawn")])
def test_the_memory_is_shared_with_the_start_method_of_the_platform(monkeypatch, platform, method):
    monkeypatch.setattr(cache_ram.sys, "platform", platform)
    table = shared_bytes(10).fill_(21)
    monkeypatch.undo()
    context = torch.multiprocessing.get_context(method)
    values = context.Queue()
    process = context.Process(target=double, args=(values, table))
    process.start()
    assert values.get(timeout=60) == 42
    process.join()
    assert table.tolist() == [42] * 10


def test_an_entry_is_not_seen_before_it_is_filled(tmp_path):
    write_image(tmp_path / "a.jpg", 48, 64)
    key = cache.key_of(0, str(tmp_path / "a.jpg"), None, (48, 64), "pillow")
    store = RamCache(1, LARGE)
    row = store._table[0, 3]
    row[:] = torch.tensor([cache_ram.TAKEN, 0, 48, 64, key.changed_ns, key.length])
    assert store._find(key) is None
    row[cache_ram.STATE] = cache_ram.FILLED
    assert store._find(key).shape == (3, 48, 64)
    assert store._find(replace(key, changed_ns=1)) is None
