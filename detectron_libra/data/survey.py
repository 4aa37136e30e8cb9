# SPDX-License-Identifier: Apache-2.0
"""Every image of a data set looked at, by worker processes: a decoder that crashes or hangs ends one of them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any

import torch
from tqdm import tqdm

from detectron_libra.data.forking import interrupt_deferred
from detectron_libra.data.images import check_end, check_plain, check_size, read_image
from detectron_libra.errors import InputError, RunError

LEVELS = ("off", "quick", "full")
#: Fewer images than this are looked at here: processes would take longer to start.
WORTH_A_WORKER = 64
#: Seconds with one image after which its worker counts as hung.
TIMEOUT_S = 120.0

#: Path, and (height, width) as the annotations state it.
Image = tuple[str, tuple[int, int]]


def survey(images: Sequence[Image], *, level: str, workers: int, name: str) -> list[str]:
    """What is wrong with each image, empty for nothing.

    Args:
        images: paths and stated sizes.
        level: ``quick`` reads the header and the end of a file, and decodes it where its end is not that of a whole
            image; ``full`` decodes every file.
        workers: processes; 0 reads in this one.
        name: of the data set, for the progress bar.

    Raises:
        RunError: a worker died or hangs; the text names its image.
    """
    assert level in LEVELS[1:], level
    texts = [""] * len(images)
    workers = min(workers, len(images) // WORTH_A_WORKER)
    found = _by_workers(images, level, workers) if workers > 0 else _here(images, level)
    bar = tqdm(found, total=len(images), desc=f"checking {name}", unit="image", delay=1, disable=None)
    for k, text in bar:
        texts[k] = text
    return texts


def look(file: str, size: tuple[int, int], level: str) -> str:
    """What is wrong with one image; arguments as in ``survey``."""
    try:
        check_plain(file)
        if level == "full":
            read_image(file, size=size)
        else:
            check_size(file, size)
            check_end(file)
    except InputError as e:
        return str(e).removeprefix(f"{file}: ")
    return ""


def _here(images: Sequence[Image], level: str) -> Iterator[tuple[int, str]]:
    for k, (file, size) in enumerate(images):
        yield k, look(file, size, level)


def _by_workers(images: Sequence[Image], level: str, workers: int) -> Iterator[tuple[int, str]]:
    """Position and finding of every image, in any order: worker k has images k, k + workers, and so on."""
    context: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
    running: dict[Connection, Any] = {}
    answered: dict[Connection, int] = {}
    try:
        for first in range(workers):
            reader, writer = context.Pipe(duplex=False)
            process = context.Process(target=_work, args=(writer, images, first, workers, level), daemon=True)
            with interrupt_deferred():
                process.start()
            writer.close()  # the worker has the only one now, so that its end is seen here
            running[reader], answered[reader] = process, first
        while running:
            ready = wait(list(running), timeout=TIMEOUT_S)
            if not ready:
                held = ", ".join(images[answered[reader]][0] for reader in running)
                raise RunError(f"{held}: reading hangs for {TIMEOUT_S:.0f} s; remove the file or its entry")
            for reader in ready:
                yield from _receive(reader, running, answered, images, workers)
    finally:
        for process in running.values():
            process.kill()
            process.join()


def _receive(
    reader: Connection, running: dict, answered: dict, images: Sequence[Image], workers: int
) -> Iterator[tuple[int, str]]:
    try:
        k, text = reader.recv()
    except EOFError:
        process = running.pop(reader)
        process.join()
        held = answered[reader]
        if held < len(images):
            raise RunError(
                f"{images[held][0]}: the process that read it ended ({_ending(process.exitcode)}); remove the file "
                "or its entry, or lower DATA.WORKERS where memory is short"
            ) from None
        return
    answered[reader] = k + workers
    yield k, text


def _ending(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _work(writer: Connection, images: Sequence[Image], first: int, step: int, level: str) -> None:
    """One thread; a signal to the whole group is the main process's to answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    with suppress(BrokenPipeError):  # nobody listens any more
        for k in range(first, len(images), step):
            writer.send((k, look(*images[k], level)))
    writer.close()
    os._exit(0)  # what the main process prepared for its own end is not this one's to do
