# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures for every unit test of the collection: a server that answers by script, a clock that costs no time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest


@dataclass
class Seen:
    """One request as it arrived; header names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Clock:
    """A clock that only sleeping moves."""

    now: float = 1_000.0
    slept: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


Answer = Callable[[BaseHTTPRequestHandler], None]


class Script:
    """A real HTTP server on loopback that gives the answers of a list in turn and keeps what it was asked."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.seen: list[Seen] = []
        self.released = threading.Event()
        script = self

        class Handler(BaseHTTPRequestHandler):
            def handle_any(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                headers = {name.lower(): value for name, value in self.headers.items()}
                script.seen.append(Seen(self.command, self.path, headers, self.rfile.read(length)))
                script.answers.pop(0)(self)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()

    def reply(self, status: int, body: bytes = b"{}", headers: dict[str, str] | None = None) -> None:
        """Add an answer with this status and body."""

        def send(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                handler.send_header(name, value)
            handler.end_headers()
            handler.wfile.write(body)

        self.answers.append(send)

    def hang_up(self) -> None:
        """Add no answer at all: the connection is closed after the request was read."""
        self.answers.append(lambda handler: handler.connection.close())

    def stall(self, seconds: float) -> None:
        """Add an answer that begins too late."""
        self.answers.append(lambda handler: self.released.wait(seconds) and None)

    def close(self) -> None:
        self.released.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def script() -> Iterator[Script]:
    server = Script()
    yield server
    server.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()
