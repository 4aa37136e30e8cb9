# SPDX-License-Identifier: Apache-2.0
"""A web server on this machine, in a thread, that answers as a test wants and remembers what it was asked."""

import http.server
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Answer:
    """What the server says to one address."""

    content: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    #: Length that is announced; None: the true one.
    length: int | None = None


@dataclass
class Server:
    """``answers`` by path; ``asked`` grows; ``before`` is called before each answer."""

    answers: dict[str, Answer]
    url: str = ""
    asked: list[str] = field(default_factory=list)
    before: threading.Event = field(default_factory=threading.Event)


@contextmanager
def serving(answers: Mapping[str, Answer]) -> Iterator[Server]:
    """A server that stops when the block ends; every other address is not found."""
    server = Server(dict(answers))
    server.before.set()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.asked.append(self.path)
            server.before.wait(20)
            answer = server.answers.get(self.path, Answer(b"no", 404))
            self.send_response(answer.status)
            length = len(answer.content) if answer.length is None else answer.length
            for name, value in {"Content-Length": str(length), **answer.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.content)

        def log_message(self, *words) -> None:
            pass

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{httpd.server_port}"
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        httpd.shutdown()
        thread.join()
        httpd.server_close()
