# SPDX-License-Identifier: GPL-3.0-or-later
"""A router in this process, on a real socket, before vLLM stand-ins that are processes of their own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from sophia.process import bind
from sophia.router.service import Service
from sophia.router.settings import (
    BackendSettings,
    HealthSettings,
    OverflowSettings,
    QueueSettings,
    Settings,
)
from sophia.server import Server, configure
from standin import Vllm, metric

MODEL = "sophia-local"
HEALTH = HealthSettings(interval=0.1, timeout=1.0, fall=2, failures=3, window=10.0, cooldown=0.5)


class Running:
    """A router that serves. `settings` are what it was started with."""

    def __init__(self, service: Service, url: str) -> None:
        self.service = service
        self.settings = service.settings
        self.url = url
        self.client = httpx.AsyncClient(
            base_url=url,
            timeout=60,
            verify=False,
            limits=httpx.Limits(max_connections=500, max_keepalive_connections=500),
        )

    async def chat(self, content: str = "Once", **options: Any) -> httpx.Response:
        """One chat. `headers` go along, everything else into the body."""
        headers = options.pop("headers", {})
        body = {"model": MODEL, "max_tokens": 16, "ignore_eos": True} | options
        body.setdefault("messages", [{"role": "user", "content": content}])
        return await self.client.post("/v1/chat/completions", json=body, headers=headers)

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples."""
        return metric(self.service.metrics.render().decode(), name, **labels)

    async def until(self, holds: Callable[[], bool] | Callable[[], Awaitable[bool]]) -> None:
        """Wait until something holds; half a minute at most."""
        async with asyncio.timeout(30):
            while True:
                found = holds()
                if found if isinstance(found, bool) else await found:
                    return
                await asyncio.sleep(0.02)


Start = Callable[..., Awaitable[Running]]


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Running]:
    service = Service(settings)
    await service.open()
    listener = bind("127.0.0.1:0")
    server = Server(configure(service.app, 1))
    serving = asyncio.create_task(server._serve([listener]))
    router = Running(service, f"http://127.0.0.1:{listener.getsockname()[1]}")
    try:
        await router.until(lambda: server.started)
        yield router
    finally:
        await router.client.aclose()
        server.should_exit = True
        await serving
        await service.close()


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Start a router before these stand-ins; `overflow` is another one that stands in for the gateway."""
    async with AsyncExitStack() as stack:

        async def begin(vllms: list[Vllm] | list[str], *, overflow: Vllm | None = None, **given: Any) -> Running:
            of_each = {name: given.pop(name) for name in ("concurrency", "key_file") if name in given}
            urls = [vllm if isinstance(vllm, str) else vllm.url for vllm in vllms]
            backends = [
                BackendSettings(name=f"vllm-{number}", url=url, **({"concurrency": 16} | of_each))
                for number, url in enumerate(urls)
            ]
            over = None
            if overflow is not None:
                key = tmp_path / "overflow.key"
                key.touch(mode=0o600)
                key.write_text("key-of-the-overflow")
                models = {MODEL: "vendor/large"}
                over = OverflowSettings(url=f"{overflow.url}/v1", key_file=key, models=models, wait=0.2)
            given.setdefault("queue", QueueSettings(wait=20.0))
            settings = Settings(backends=backends, overflow=over, **({"health": HEALTH, "access_log": False} | given))
            return await stack.enter_async_context(running(settings))

        yield begin


class Park:
    """Stand-ins that outlive a test, since starting one takes most of a second."""

    def __init__(self) -> None:
        self._made: dict[tuple[str, ...], list[Vllm]] = {}

    def take(self, count: int, *options: str, api_key: str = "") -> list[Vllm]:
        """So many with these options, well and with nothing cached."""
        made = self._made.setdefault((*options, api_key), [])
        while len(made) < count:
            made.append(Vllm(*options, api_key=api_key))
        for vllm in made[:count]:
            vllm.reset()
        return made[:count]

    def close(self) -> None:
        for vllm in (vllm for made in self._made.values() for vllm in made):
            vllm.kill()


@pytest.fixture(scope="session")
def parked() -> Iterator[Park]:
    made = Park()
    yield made
    made.close()


QUICK = ("--tokens-per-second", "2000", "--prefill-tokens-per-second", "0")


@pytest.fixture
def three(parked: Park) -> list[Vllm]:
    """Three quick stand-ins."""
    return parked.take(3, *QUICK)
