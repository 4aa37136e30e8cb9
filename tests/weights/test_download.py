# SPDX-License-Identifier: Apache-2.0
"""A file is downloaded once, is whole or not there, and every failure is one line with the address and a remedy."""

import hashlib
import multiprocessing
import resource
import socket
import time
from pathlib import Path

import pytest

from detectron_libra.errors import InputError, RunError, UsageError
from detectron_libra.weights import download, transfer
from detectron_libra.weights.download import fetch, is_address, living, place_of
from tests.weights.server import Answer, serving

CONTENT = bytes(range(256)) * 1000
PATH = "/weights/R-50.pkl"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    """Loopback is asked directly, whatever the machine is set to."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def server():
    with serving({PATH: Answer(CONTENT)}) as one:
        yield one


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.rglob("*") if p.is_file() and p.name != ".lock")


def refused(url: str, cache: Path, *parts: str, kind=InputError) -> None:
    """Fetching fails in one line with every part, and leaves no file behind."""
    with pytest.raises(kind) as error:
        fetch(url, cache)
    assert "\n" not in str(error.value)
    for part in (url, *parts):
        assert part in str(error.value), (part, str(error.value))
    assert not [name for name in names(cache) if not name.endswith(".sha256")]


def test_the_second_time_needs_no_server(tmp_path):
    """Where file and digest agree, no connection is opened."""
    with serving({PATH: Answer(CONTENT)}) as server:
        url = server.url + PATH
        file = fetch(url, tmp_path)
    assert file.read_bytes() == CONTENT
    digest = (file.parent / "R-50.pkl.sha256").read_text()
    assert digest == f"{hashlib.sha256(CONTENT).hexdigest()}  R-50.pkl\n"
    assert fetch(url, tmp_path) == file
    assert server.asked == [PATH, f"{PATH}.md5sum"]


def test_a_damaged_copy_is_told_and_downloaded_anew(server, tmp_path, caplog):
    file = fetch(server.url + PATH, tmp_path)
    file.write_bytes(CONTENT[:-1] + b"\x00")
    assert fetch(server.url + PATH, tmp_path).read_bytes() == CONTENT
    assert [record.message for record in caplog.records if "damaged" in record.message] != []
    assert str(file) in caplog.text


def test_a_damaged_copy_stays_until_a_whole_one_is_there(tmp_path):
    with serving({PATH: Answer(CONTENT)}) as server:
        file = fetch(server.url + PATH, tmp_path)
    file.write_bytes(b"damaged")
    with pytest.raises(InputError, match="no network"):
        fetch(server.url + PATH, tmp_path)
    assert file.read_bytes() == b"damaged"


def test_a_copy_put_there_by_hand_is_taken(tmp_path, caplog):
    """The remedy of every message: a copy in the place it names is read without a network."""
    caplog.set_level("INFO")
    file = place_of("https://example.org/a/b.pkl", tmp_path)
    file.parent.mkdir(parents=True)
    file.write_bytes(CONTENT)
    for _ in range(2):
        assert fetch("https://example.org/a/b.pkl", tmp_path) == file
    assert caplog.text.count("by hand") == 1


def test_an_answer_that_breaks_off_leaves_nothing(server, tmp_path):
    server.answers[PATH] = Answer(CONTENT[:1000], length=len(CONTENT))
    refused(server.url + PATH, tmp_path, f"1000 bytes of {len(CONTENT)}", str(tmp_path))


@pytest.mark.parametrize(
    ("answer", "part"),
    [
        (Answer(b"gone", 404), "no such file (status 404)"),
        (Answer(b"no", 403), "refuses it (status 403)"),
        (Answer(b"oh", 500), "status 500"),
        (Answer(b""), "empty"),
        (Answer(b"<html>", headers={"Content-Type": "text/html; charset=utf-8"}), "web page"),
        (Answer(status=302, headers={"Location": "file:///etc/passwd"}), "not followed"),
        (Answer(status=302, headers={"Location": "ftp://127.0.0.1/x"}), "not followed"),
        (Answer(status=302, headers={"Location": PATH}), "not followed"),
        (Answer(b"x", headers={"Content-Length": "many"}), "x"),
    ],
)
def test_what_a_server_may_answer(server, tmp_path, answer, part):
    server.answers[PATH] = answer
    if part == "x":  # a length that is no number is no length
        assert fetch(server.url + PATH, tmp_path).read_bytes() == b"x"
        return
    refused(server.url + PATH, tmp_path, part)


def test_a_redirect_over_http_is_followed(server, tmp_path):
    server.answers["/old"] = Answer(status=301, headers={"Location": PATH})
    assert fetch(f"{server.url}/old", tmp_path).read_bytes() == CONTENT


def test_a_secure_address_does_not_lead_to_an_insecure_one():
    request = transfer.urllib.request.Request("https://example.org/a")
    with pytest.raises(ValueError, match="not followed"):
        transfer._Redirects().redirect_request(request, None, 302, "", {}, "http://example.org/b")


@pytest.mark.parametrize("list_", [f"{hashlib.md5(CONTENT).hexdigest()}", "  {}  R-50.pkl\n", "<p>hello</p>"])
def test_an_md5_that_agrees_or_is_none(server, tmp_path, list_):
    text = list_.format(hashlib.md5(CONTENT).hexdigest().upper())
    server.answers[f"{PATH}.md5sum"] = Answer(text.encode())
    assert fetch(server.url + PATH, tmp_path).read_bytes() == CONTENT


def test_an_md5_that_differs(server, tmp_path):
    server.answers[f"{PATH}.md5sum"] = Answer(b"0" * 32)
    refused(server.url + PATH, tmp_path, "MD5", "0" * 32)


def test_no_server_and_a_server_that_is_silent(tmp_path, monkeypatch):
    with serving({}) as gone:
        url = gone.url + PATH
    refused(url, tmp_path, "no network", str(place_of(url, tmp_path)))
    monkeypatch.setattr(transfer, "TIMEOUT_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        refused(f"http://127.0.0.1:{silent.getsockname()[1]}/a", tmp_path, "no answer")


def test_a_disk_that_is_full(server, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(RunError, match=r"R-50\.pkl: cannot be written .*DOWNLOAD_CACHE"):
            fetch(server.url + PATH, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names(tmp_path) == []


def test_a_folder_that_cannot_be_made(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="set DOWNLOAD_CACHE"):
        fetch(server.url + PATH, tmp_path / "file")


def test_two_processes_at_once_download_once(server, tmp_path):
    """The second one waits, and finds the file of the first."""
    server.before.clear()
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=fetch, args=(server.url + PATH, tmp_path)) for _ in range(2)]
    for process in processes:
        process.start()
    limit = time.monotonic() + 10
    while not server.asked and time.monotonic() < limit:
        time.sleep(0.01)
    server.before.set()
    for process in processes:
        process.join(20)
    assert [process.exitcode for process in processes] == [0, 0]
    assert server.asked.count(PATH) == 1
    assert names(tmp_path) == ["R-50.pkl", "R-50.pkl.sha256"]


def test_what_a_killed_process_left_is_removed(server, tmp_path):
    file = place_of(server.url + PATH, tmp_path)
    file.parent.mkdir(parents=True)
    (file.parent / "R-50.pkl.tmp77").write_bytes(b"half")
    fetch(server.url + PATH, tmp_path)
    assert names(tmp_path) == ["R-50.pkl", "R-50.pkl.sha256"]


def test_both_addresses_of_detectron_are_one_place_and_the_living_one_is_asked(server, tmp_path, monkeypatch):
    """https://s3-us-west-2.amazonaws.com/detectron was retired; its files are at dl.fbaipublicfiles.com now."""
    new = "https://dl.fbaipublicfiles.com/detectron/ImageNetPretrained/MSRA/R-50.pkl"
    old = "https://s3-us-west-2.amazonaws.com/detectron/ImageNetPretrained/MSRA/R-50.pkl"
    assert living(old) == living(new) == new
    assert place_of(old, tmp_path) == place_of(new, tmp_path) == tmp_path / "ImageNetPretrained/MSRA/R-50.pkl"
    assert place_of("https://dl.fbaipublicfiles.com/other/a", "c") == Path("c/dl.fbaipublicfiles.com/other/a")
    monkeypatch.setattr(download, "DETECTRON", f"{server.url}/weights")
    assert fetch("https://s3-us-west-2.amazonaws.com/detectron/R-50.pkl", tmp_path) == tmp_path / "R-50.pkl"
    assert server.asked[0] == PATH


def test_places_of_other_addresses(tmp_path):
    assert place_of("HTTPS://Example.org:8080/a%2Fb/c.pth", "c") == Path("c/example.org:8080/a%2Fb/c.pth")
    one, two = (place_of(f"https://example.org/get?id={n}", "c") for n in (1, 2))
    assert one != two and one.parent == Path("c/example.org")


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.org/a",
        "file:///etc/passwd",
        "s3://bucket/a",
        "https://",
        "https://example.org",
        "https://example.org/folder/",
        "https://example.org/../../etc/passwd",
        "https://example.org/a b",
        "https://me:secret@example.org/a",
        "https://example.org/a\nb",
        "https://[broken/a",
        f"https://example.org/{'x' * 300}",
    ],
)
def test_addresses_that_are_none(tmp_path, url):
    assert is_address(url)
    with pytest.raises(InputError) as error:
        fetch(url, tmp_path)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_paths_are_no_addresses():
    assert not any(map(is_address, ("R-50.pkl", "/a/b.pkl", "a:b", "C:\\a", "weights//a", "")))
