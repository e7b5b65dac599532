# SPDX-License-Identifier: GPL-3.0-or-later
"""The stand-in, in this process for what needs a clock, and behind a real socket for what needs a wire."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import uvicorn
from hypothesis import settings as hypothesis_settings

from sophia.sandbox.openrouter import INFERENCE_KEY, MANAGEMENT_KEY, Config, create_app
from sophia.sandbox.openrouter.app import Application
from sophia.sandbox.openrouter.server import settings

# The vendor's document is not part of this project: the test against it runs where its path is given.
collect_ignore = [] if os.environ.get("OPENROUTER_OPENAPI") else ["test_conformance.py"]

# This machine may be busy with anything else; how long an example takes says nothing.
unhurried = hypothesis_settings(deadline=None)

QUESTION = [{"role": "user", "content": "Explain how rate limiting works in an API gateway."}]


@dataclass
class Clock:
    """Time that stands still until a test moves it."""

    now: float = 1_790_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Account:
    """The stand-in with clients that hold its two keys."""

    app: Application
    clock: Clock
    user: httpx.AsyncClient
    manager: httpx.AsyncClient

    async def chat(self, **body: Any) -> httpx.Response:
        """One question; by default to a cheap model."""
        return await self.user.post(
            "/chat/completions", json={"model": "openai/gpt-4o-mini", "messages": QUESTION} | body
        )

    async def truth(self, **parameters: Any) -> Any:
        """What was billed."""
        return (await self.user.get("http://sandbox/_sandbox/truth", params=parameters)).json()

    async def seed(self, **key: Any) -> Any:
        """Make a key that the test knows."""
        response = await self.user.post("http://sandbox/_sandbox/seed", json={"keys": [key]})
        assert response.status_code == 200, response.text
        return response.json()["data"][0]

    def with_key(self, secret: str) -> httpx.AsyncClient:
        """A client with another key."""
        return client(self.app, secret)


def client(app: Application, secret: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app),
        base_url="http://sandbox/api/v1",
        headers={"authorization": f"Bearer {secret}", "user-agent": "test/1.0"},
    )


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def account(clock: Clock) -> AsyncIterator[Account]:
    app = create_app(Config(clock=clock))
    async with client(app, INFERENCE_KEY) as user, client(app, MANAGEMENT_KEY) as manager:
        yield Account(app, clock, user, manager)


class Served:
    """The stand-in behind a socket, on a thread of its own."""

    def __init__(self, config: Config) -> None:
        self._server = uvicorn.Server(settings(config, "127.0.0.1", 0))
        self._ready = threading.Event()
        self._http = httpx.Client(timeout=30)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.port = 0

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=self._server.config.get_loop_factory()) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        task = asyncio.create_task(self._server.serve())
        while not self._server.started and not task.done():  # noqa: ASYNC110 (uvicorn has no event for it)
            await asyncio.sleep(0.005)
        if self._server.started:
            self.port = self._server.servers[0].sockets[0].getsockname()[1]
        self._ready.set()
        await task

    def start(self) -> None:
        self._thread.start()
        assert self._ready.wait(10)
        assert self.port

    def stop(self) -> None:
        self._http.close()
        self._server.should_exit = True
        self._thread.join(15)
        assert not self._thread.is_alive()

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.root}/api/v1"

    def truth(self, **parameters: Any) -> Any:
        return self._http.get(f"{self.root}/_sandbox/truth", params=parameters).json()

    def reset(self) -> None:
        assert self._http.post(f"{self.root}/_sandbox/reset").status_code == 200

    def faults(self, *rules: Any) -> None:
        response = self._http.post(f"{self.root}/_sandbox/faults", json=list(rules))
        assert response.status_code == 200, response.text


@pytest.fixture(scope="module")
def running() -> Iterator[Served]:
    served = Served(Config(generation_delay=0.05))
    served.start()
    try:
        yield served
    finally:
        served.stop()


@pytest.fixture
def served(running: Served) -> Served:
    """The running stand-in, with nothing in it but its two keys."""
    running.reset()
    return running
