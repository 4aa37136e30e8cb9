# SPDX-License-Identifier: Apache-2.0
"""Images looked at by worker processes: the same as in one process, and a worker that ends is told with its image."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from detectron_libra.data import survey as module
from detectron_libra.data.images import check_end
from detectron_libra.data.survey import survey
from detectron_libra.errors import InputError, RunError
from tests.data.coco_files import write_image

ROOT = Path(__file__).parents[2]


@pytest.fixture
def images(tmp_path):
    """Nine images, of which the fifth is cut and the eighth has another size."""
    found = []
    for k in range(9):
        file = tmp_path / f"{k}.jpg"
        write_image(file, 24, 32, k)
        found.append((str(file), (24, 32)))
    cut = tmp_path / "4.jpg"
    cut.write_bytes(cut.read_bytes()[:-30])
    found[7] = (found[7][0], (32, 24))
    return found


@pytest.mark.parametrize("level", ["quick", "full"])
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_workers_find_what_one_process_finds(images, monkeypatch, workers, level):
    monkeypatch.setattr(module, "WORTH_A_WORKER", 1)
    texts = survey(images, level=level, workers=workers, name="set")
    assert [k for k, text in enumerate(texts) if text] == [4, 7]
    assert "damaged" in texts[4] and "32 x 24" in texts[7]


def test_a_worker_that_dies_is_told_with_the_image_it_held(images, monkeypatch):
    def look(file, size, level):
        if file == images[5][0]:
            os.kill(os.getpid(), signal.SIGKILL)
        return ""

    monkeypatch.setattr(module, "WORTH_A_WORKER", 1)
    monkeypatch.setattr(module, "look", look)
    with pytest.raises(RunError, match=r"5\.jpg: .*SIGKILL"):
        survey(images, level="quick", workers=2, name="set")


INTERRUPTED = """
import os, signal, sys, threading
from detectron_libra.data import survey

threading.Thread(target=threading.Event().wait, daemon=True).start()  # one that may get the signal instead

survey.WORTH_A_WORKER = 1
signal.signal(signal.SIGINT, signal.default_int_handler)
os.register_at_fork(after_in_parent=lambda: os.kill(os.getpid(), signal.SIGINT))
try:
    survey.survey([(file, (24, 32)) for file in sys.argv[1:]], level="quick", workers=2, name="set")
except KeyboardInterrupt:
    sys.exit(130)
"""


def test_ctrl_c_while_a_worker_starts_is_not_lost(images):
    """Python swallows what is raised around a fork."""
    command = [sys.executable, "-c", INTERRUPTED, *(file for file, _ in images)]
    assert subprocess.run(command, cwd=ROOT, timeout=60).returncode == 130


def test_a_worker_that_hangs_is_told_with_the_image_it_held(images, monkeypatch):
    def look(file, size, level):
        time.sleep(60 if file == images[2][0] else 0)
        return ""

    monkeypatch.setattr(module, "WORTH_A_WORKER", 1)
    monkeypatch.setattr(module, "TIMEOUT_S", 0.5)
    monkeypatch.setattr(module, "look", look)
    begun = time.monotonic()
    with pytest.raises(RunError, match=r"2\.jpg: reading hangs"):
        survey(images, level="quick", workers=1, name="set")
    assert time.monotonic() - begun < 20


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF"])
def test_an_end_that_is_missing_is_noticed_and_bytes_after_it_are_not(tmp_path, kind):
    file = tmp_path / "image"
    write_image(file, 40, 50, format=kind)
    whole = file.read_bytes()
    check_end(str(file))
    file.write_bytes(whole + b"garbage after the end")
    check_end(str(file))
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="image"):
        check_end(str(file))


def test_a_whole_file_is_not_decoded(tmp_path, monkeypatch):
    """The quick check costs a few bytes per file."""
    for kind in ("JPEG", "PNG", "GIF", "BMP", "WEBP"):
        write_image(tmp_path / kind, 16, 16, format=kind)
    monkeypatch.setattr("detectron_libra.data.images.read_image", None)
    for kind in ("JPEG", "PNG", "GIF", "BMP", "WEBP"):
        check_end(str(tmp_path / kind))


@pytest.mark.parametrize("level", ["quick", "full"])
def test_what_is_no_plain_file_is_not_read(tmp_path, level):
    """A pipe without a writer would be waited for, and a device read for ever."""
    pipe, folder, device = tmp_path / "pipe.jpg", tmp_path / "folder.jpg", tmp_path / "device.jpg"
    os.mkfifo(pipe)
    folder.mkdir()
    device.symlink_to("/dev/zero")
    files = [(str(p), (8, 8)) for p in (pipe, folder, device)]
    texts = survey(files, level=level, workers=0, name="set")
    assert "pipe" in texts[0] and "folder" in texts[1] and "device" in texts[2]
