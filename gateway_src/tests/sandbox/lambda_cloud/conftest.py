# SPDX-License-Identifier: GPL-3.0-or-later
"""The stand-in in this process on a clock that tests move, and behind a real socket for what needs a wire."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
import uvicorn

from sophia.sandbox.lambda_cloud import API_KEY, Answer, Cloud, Config, Request
from sophia.sandbox.lambda_cloud.server import settings

LAUNCH: dict[str, Any] = {
    "region_name": "us-east-1",
    "instance_type_name": "gpu_1x_a10",
    "ssh_key_names": ["ops"],
}


@dataclass
class Clock:
    """Time that stands still until a test moves it."""

    now: float = 1_790_000_000.0

    def __call__(self) -> float:
        return self.now


class Account:
    """A cloud with an SSH key, and a client that keeps the pace by moving the clock."""

    def __init__(self, **options: Any) -> None:
        self.clock = Clock()
        self.cloud = Cloud(Config(clock=self.clock, **options))
        self.control("seed", {"ssh_keys": {"ops": "ssh-ed25519 AAAA ops"}})

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """One request, at once."""
        url, _, query = path.partition("?")
        return self.cloud.handle(
            Request(
                method,
                url,
                dict(pair.split("=") for pair in query.split("&") if pair),
                {"authorization": f"Bearer {API_KEY}", **headers},
                b"" if body is None else msgspec.json.encode(body),
            )
        )

    def call(self, method: str, path: str, body: Any = None, status: int = 200) -> Any:
        """One request of the vendor's API after as long as its limits ask for."""
        self.clock.now += 12.0 if path.endswith("/launch") else 1.0
        answer = self.send(method, f"/api/v1{path}", body)
        assert answer.status == status, answer.body
        return msgspec.json.decode(answer.body)

    def control(self, path: str, body: Any = None) -> Any:
        """A request of the stand-in's own."""
        answer = self.send("POST" if body is not None else "GET", f"/_sandbox/{path}", body)
        assert answer.status == 200, answer.body
        return msgspec.json.decode(answer.body)

    def launch(self, **fields: Any) -> str:
        """Launch an instance; returns its id."""
        answer = self.call("POST", "/instance-operations/launch", {**LAUNCH, **fields})
        return str(answer["data"]["instance_ids"][0])

    def code(self, method: str, path: str, body: Any, status: int) -> str:
        """The code of the error that a request has to get."""
        return str(self.call(method, path, body, status)["error"]["code"])


@pytest.fixture
def account() -> Account:
    return Account()


@pytest.fixture(scope="module")
def served() -> Iterator[str]:
    """The URL of a stand-in behind a socket."""
    server = uvicorn.Server(settings(Config(request_interval=0, launch_interval=0), "127.0.0.1", 0))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.01)
        assert thread.is_alive()
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()
