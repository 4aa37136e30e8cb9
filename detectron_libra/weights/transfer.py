# SPDX-License-Identifier: Apache-2.0
"""What is at an address, over HTTP; where that is not all of a file, one line says why."""

from __future__ import annotations

import hashlib
import http.client
import logging
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tqdm import tqdm

from detectron_libra.errors import InputError

log = logging.getLogger(__name__)

#: A server that is silent for so long counts as gone.
TIMEOUT_S = 30.0
CHUNK = 1 << 20
MD5 = re.compile(r"[0-9a-fA-F]{32}(?![0-9a-zA-Z])")
#: What opening an address or reading from it may raise, besides a status that is an error.
NETWORK_ERRORS = (OSError, http.client.HTTPException, ValueError)


@dataclass(frozen=True)
class Digests:
    """Of the bytes that arrived, in hexadecimal digits."""

    sha256: str
    md5: str


def download(url: str, write: Callable[[bytes], object], *, remedy: str) -> Digests:
    """Reads what is at an address, piece by piece.

    Args:
        url: http or https.
        write: is given the pieces; what it raises is handed on if it is no error of a network.
        remedy: what the user can do instead, the end of every message.

    Returns:
        Digests of the content.

    Raises:
        InputError: the address has no file, the network fails, or what arrives is not all of a file.
    """
    try:
        with _open(url) as answer:
            if answer.headers.get_content_type() == "text/html":
                raise InputError(f"{url}: the answer is a web page, not a file; {remedy}")
            return _pass_on(answer, write, url, remedy)
    except NETWORK_ERRORS as e:
        raise InputError(f"{url}: {_reason(e)}; {remedy}") from e


def offered_md5(url: str) -> str | None:
    """The MD5 that a server offers beside a file, under its address with ``.md5sum``; None where it does not."""
    try:
        with _open(f"{url}.md5sum") as answer:
            match = MD5.match(answer.read(200).decode("ascii", "replace").strip())
    except NETWORK_ERRORS as e:
        log.debug("%s.md5sum: %s", url, _reason(e))
        return None
    return match[0].lower() if match else None


def _open(url: str) -> Any:
    request = urllib.request.Request(url, headers={"User-Agent": "detectron_libra"})
    return urllib.request.build_opener(_Redirects()).open(request, timeout=TIMEOUT_S)


def _pass_on(answer: Any, write: Callable[[bytes], object], url: str, remedy: str) -> Digests:
    length = answer.headers.get("Content-Length", "")
    expected = int(length) if length.isdigit() else None
    sha256, md5, size = hashlib.sha256(), hashlib.md5(usedforsecurity=False), 0
    name = urlsplit(url).path.rpartition("/")[2]
    with tqdm(total=expected, unit="B", unit_scale=True, disable=None, desc=name) as bar:
        while chunk := answer.read(CHUNK):
            write(chunk)
            sha256.update(chunk)
            md5.update(chunk)
            size += len(chunk)
            bar.update(len(chunk))
    if size == 0:
        raise InputError(f"{url}: the answer is empty; {remedy}")
    if expected not in (None, size):
        raise InputError(f"{url}: {size} bytes of {expected} arrived; try again, or {remedy}")
    return Digests(sha256.hexdigest(), md5.hexdigest())


def _reason(error: Exception) -> str:
    """What went wrong, as a user would say it."""
    if isinstance(error, urllib.error.HTTPError):
        if 300 <= error.code < 400:
            return f"the server leads elsewhere, which is not followed ({' '.join(str(error.msg).split())[:160]})"
        words = {404: "there is no such file", 401: "the server asks for a login"}
        return f"{words.get(error.code, 'the server refuses it')} (status {error.code})"
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, TimeoutError):
        return f"no answer for {TIMEOUT_S:.0f} s"
    if isinstance(cause, ssl.SSLError):
        return f"no secure connection ({cause.reason or cause})"
    if isinstance(cause, http.client.IncompleteRead):
        return "the connection broke off"
    if isinstance(cause, OSError):
        return f"no network, or no such server: {cause.strerror or cause}"
    return f"cannot be read: {' '.join(str(cause).split())[:120]}"


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a server to another address over HTTP, and from a secure one to secure ones only."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if urlsplit(newurl).scheme.lower() not in ("https", urlsplit(req.full_url).scheme.lower()):
            raise ValueError(f"the server leads to {newurl}, which is not followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)
