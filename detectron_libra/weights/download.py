# SPDX-License-Identifier: Apache-2.0
"""Files by their address: downloaded once into a folder, from then on read there, without a network."""

from __future__ import annotations

import fcntl
import glob
import hashlib
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO
from urllib.parse import SplitResult, urlsplit

from detectron_libra.errors import InputError, RunError, UsageError
from detectron_libra.files import atomic_write
from detectron_libra.weights.transfer import CHUNK, download, offered_md5

log = logging.getLogger(__name__)

#: Where Detectron's files are, and where they were until 2018; both have one place in the folder, Detectron's own.
DETECTRON = "https://dl.fbaipublicfiles.com/detectron"
RETIRED = "https://s3-us-west-2.amazonaws.com/detectron"
SCHEMES = ("http", "https")
#: What an address cannot hold: white space, control characters, and a password, which would end up in names of folders.
NO_ADDRESS = re.compile(r"[\x00-\x20\x7f]|://[^/]*@")
#: Bytes of a name, with room for the endings of its digest and of what is on the way.
LONGEST_NAME = 200


def is_address(text: str) -> bool:
    """Whether a text names something on a network and not a file of this machine."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text) is not None


def fetch(url: str, cache_folder: str | os.PathLike) -> Path:
    """The local copy of a file, downloaded where there is none that is whole.

    Where the copy is there and agrees with the digest beside it (``<file>.sha256``, in the form of sha256sum), no
    connection is opened. A file that was put there by hand, without a digest, is taken as it is.

    Args:
        url: http or https. Detectron's retired address stands for the living one.
        cache_folder: made where it is missing; below it, Detectron's files lie as Detectron would put them, others
            under the name of their host.

    Returns:
        Path of the copy.

    Raises:
        UsageError: the folder cannot be made. InputError: an address that is not read, a server or network that does
            not give the file, a content that differs from its MD5. RunError: the disk is full.
    """
    url = living(url)
    file = place_of(url, cache_folder)
    if _is_whole(file):
        return file
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        message = f"{file.parent}: cannot be made ({e.strerror}); set DOWNLOAD_CACHE to another folder"
        raise UsageError(message) from e
    with _alone(Path(cache_folder)) as alone:
        if not _is_whole(file, tell=True):
            if alone:
                _remove_leftovers(file)
            _download(url, file)
    return file


def living(url: str) -> str:
    """The address to ask: that of Detectron's files has changed once."""
    parts = _parse(url)
    old = urlsplit(RETIRED)
    if parts.netloc.lower() == old.netloc and parts.path.startswith(f"{old.path}/"):
        return DETECTRON + parts.path.removeprefix(old.path) + (f"?{parts.query}" if parts.query else "")
    return url


def place_of(url: str, cache_folder: str | os.PathLike) -> Path:
    """Where the local copy of an address is, or would be.

    Raises:
        InputError: not an address of a file over HTTP.
    """
    parts = _parse(living(url))
    home = urlsplit(DETECTRON)
    path = f"/{parts.netloc.lower()}{parts.path}"
    if parts.netloc.lower() == home.netloc and parts.path.startswith(f"{home.path}/"):
        path = parts.path.removeprefix(home.path)
    *folders, name = path.strip("/").split("/")
    if ".." in (*folders, name) or not parts.path.strip("/") or parts.path.endswith("/"):
        raise InputError(f"{url}: names no file; give the address of the file itself")
    if max(len(os.fsencode(part)) for part in (*folders, name)) > LONGEST_NAME:
        raise InputError(f"{url[:80]}...: a name in it is too long for a file; download it yourself")
    if parts.query:  # one path may give several files; a query may be too long for a name
        name += "-" + hashlib.sha256(parts.query.encode()).hexdigest()[:12]
    return Path(cache_folder, *folders, name)


def _parse(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        known = parts.scheme.lower() in SCHEMES and bool(parts.hostname) and not NO_ADDRESS.search(url)
    except ValueError:
        known = False
    if not known:
        raise InputError(
            f"{url!r}: not an address that is read; give one that begins with https:// or http://, or a file"
        )
    return parts


def _download(url: str, file: Path) -> None:
    log.info("%s: downloading to %s", url, file)
    remedy = f"put a copy of it at {file}, or name another file"

    def receive(temporary: Path) -> None:
        with open(temporary, "wb", buffering=0) as target:
            digests = download(url, lambda piece: _write(target, piece, file), remedy=remedy)
        offered = offered_md5(url)
        if offered not in (None, digests.md5):
            raise InputError(
                f"{url}: MD5 is {digests.md5}, and the server's list says {offered}; try again, or {remedy}"
            )
        _write_digest(file, digests.sha256)  # before the file, which then never lies there without

    try:
        atomic_write(file, receive)
    except OSError as e:
        raise _disk_error(file, e) from e


def _remove_leftovers(file: Path) -> None:
    """Deletes what processes that were killed had downloaded of this file."""
    for path in file.parent.glob(f"{glob.escape(file.name)}.tmp*"):
        path.unlink(missing_ok=True)


def _write(target: BinaryIO, piece: bytes, file: Path) -> None:
    rest = memoryview(piece)
    try:
        while rest:
            rest = rest[target.write(rest) :]
    except OSError as e:  # told here: an error of the network is of the same class
        raise _disk_error(file, e) from e


def _disk_error(file: Path, error: OSError) -> RunError:
    return RunError(
        f"{file}: cannot be written ({error.strerror}); make room, or set DOWNLOAD_CACHE to another folder"
    )


def _is_whole(file: Path, *, tell: bool = False) -> bool:
    """Whether the copy is there and is what was downloaded; ``tell`` says so where it is not."""
    if not file.is_file():
        return False
    try:
        expected = _digest_file(file).read_text().split()[0]
    except (OSError, UnicodeDecodeError, IndexError):
        log.info("%s: put there by hand, without a digest: taken as it is", file)
        with suppress(OSError):  # a cache that others keep is read all the same
            _write_digest(file, _sha256(file))
        return True
    if _sha256(file) == expected:
        return True
    if tell:
        log.warning("%s: damaged, its digest is not the one beside it: downloaded anew", file)
    return False


def _digest_file(file: Path) -> Path:
    return file.with_name(f"{file.name}.sha256")


def _write_digest(file: Path, digest: str) -> None:
    atomic_write(_digest_file(file), f"{digest}  {file.name}\n".encode())


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    try:
        with open(file, "rb") as source:
            while chunk := source.read(CHUNK):
                digest.update(chunk)
    except OSError as e:
        raise InputError(
            f"{file}: cannot be read ({e.strerror}); remove it, it is then downloaded anew"
        ) from e
    return digest.hexdigest()


@contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """One download at a time in a folder: who comes second finds the file instead of asking for it again.

    Yields:
        False where the file system has no locks.
    """
    try:
        handle = open(folder / ".lock", "a")  # noqa: SIM115  closed below
    except OSError as e:
        message = f"{folder}: cannot be written to ({e.strerror}); set DOWNLOAD_CACHE to another folder"
        raise UsageError(message) from e
    with handle:
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("%s: another process is downloading; waiting for it", folder)
            fcntl.lockf(handle, fcntl.LOCK_EX)
        except OSError as e:
            log.warning(
                "%s: no locks here (%s); two processes may download the same file", folder, e.strerror
            )
            yield False
            return
        yield True
