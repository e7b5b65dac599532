# SPDX-License-Identifier: GPL-3.0-or-later
"""The backends: what each has to do, whether it is well, which models it serves; probed all the time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from sophia.gateway.upstream import Upstream, UpstreamFailure
from sophia.gateway.upstream_http1 import Http1Upstream
from sophia.router.choice import Seat
from sophia.router.condition import Condition
from sophia.router.metrics import Standing
from sophia.router.settings import BackendSettings, Settings, secret
from sophia.settings import UpstreamSettings

__all__ = ["Backend", "Fleet", "Model"]

_LOG = logging.getLogger(__name__)

_PROBES = 4  # connections beyond those of requests
_LISTED = 1 << 20
_READ_MODELS = 15  # probes between two readings of a backend's models


class Model(msgspec.Struct, frozen=True):
    """A model as a backend lists it."""

    id: str
    created: int = 0
    max_model_len: int | None = None


class _Models(msgspec.Struct):
    data: list[Model] = []


_MODELS = msgspec.json.Decoder(_Models)


class Backend:
    """One vLLM server as this process sees it."""

    def __init__(self, given: BackendSettings, settings: Settings) -> None:
        health = settings.health
        self.given = given
        self.name = given.name
        self.outstanding = 0
        self.running = 0
        self.condition = Condition(health.fall, health.failures, health.window, health.cooldown, settings.head_timeout)
        self.models: dict[str, Model] = {}
        key = secret(given.key_file)
        self.headers = {"authorization": f"Bearer {key}"} if key else {}
        self.client: Upstream = Http1Upstream(
            UpstreamSettings(
                base_url=given.url,
                connect_timeout=settings.connect_timeout,
                connections=given.concurrency + _PROBES,
            )
        )

    def serves(self, model: str) -> bool:
        """Whether it serves the model, as far as is known."""
        return model in self.models or model in self.given.models

    def seat(self) -> Seat:
        """What a choice needs to know of it."""
        return Seat(self.name, self.outstanding, self.running, self.given.concurrency)

    async def probe(self, timeout: float, *, read_models: bool) -> None:
        """Ask `/health`, and `/v1/models` where wanted."""
        try:
            reply = await self.client.get("/health", self.headers, timeout=timeout)
            await reply.close()
            well = reply.status == 200
            if well and (read_models or not self.models):
                listed = await self.client.get("/v1/models", self.headers, timeout=timeout)
                body = await listed.read(_LISTED)
                if listed.status == 200:
                    self.models = {model.id: model for model in _MODELS.decode(body).data}
        except (UpstreamFailure, msgspec.MsgspecError):
            well = False
        self.condition.probed(well)


class Fleet:
    """All backends. `changed` is called when one may have become usable."""

    def __init__(self, settings: Settings, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._clock = clock
        self._known: set[str] = set()
        self._watches: dict[str, asyncio.Task[None]] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self.backends: dict[str, Backend] = {}
        self.changed: Callable[[], None] = lambda: None

    async def open(self) -> None:
        """Take in the configured backends and wait for their first probes."""
        await self.reload(self._settings)

    async def reload(self, settings: Settings) -> None:
        """Take in a new list: who is not in it gets no new request, and is closed once its last one has ended."""
        self._settings = settings
        wanted = {given.name: given for given in settings.backends}
        for name, backend in list(self.backends.items()):
            if wanted.get(name) != backend.given:
                del self.backends[name]
                self._watches.pop(name).cancel()
                self._background(self._retire(backend))
        new = [Backend(given, settings) for name, given in wanted.items() if name not in self.backends]
        for backend in new:
            self.backends[backend.name] = backend
        self._known.update(model for backend in new for model in backend.given.models)
        await asyncio.gather(*(self._probe(backend, read_models=True) for backend in new))
        for backend in new:
            self._watches[backend.name] = asyncio.create_task(self._watch(backend), name=f"probe {backend.name}")

    def known(self, model: str) -> bool:
        """Whether any backend has served the model since the start."""
        return model in self._known

    def able(self, model: str) -> list[Backend]:
        """The backends that may be sent a request for the model now."""
        now = self._clock()
        return [each for each in self.backends.values() if each.serves(model) and each.condition.usable(now)]

    def up(self) -> list[Backend]:
        """The backends that may be sent requests."""
        now = self._clock()
        return [each for each in self.backends.values() if each.condition.usable(now)]

    def listed(self) -> Sequence[Model]:
        """The models of all usable backends."""
        models: dict[str, Model] = {}
        for backend in self.up():
            models |= {model.id: model for model in backend.models.values() if model.id not in models}
        return sorted(models.values(), key=lambda model: model.id)

    def standings(self) -> list[Standing]:
        """For a scrape."""
        now = self._clock()
        return [
            Standing(each.name, each.condition.state(now), each.outstanding, each.running)
            for each in self.backends.values()
        ]

    async def close(self) -> None:
        """Stop probing and close all connections."""
        tasks = [*self._watches.values(), *self._leaving]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(backend.client.close() for backend in self.backends.values()))

    async def _probe(self, backend: Backend, *, read_models: bool) -> None:
        before = backend.condition.state(self._clock())
        await backend.probe(self._settings.health.timeout, read_models=read_models)
        after = backend.condition.state(self._clock())
        self._known.update(backend.models)
        if after != before:
            _LOG.info("backend changed", extra={"backend": backend.name, "was": before, "state": after})
        if after == "up":
            self.changed()

    async def _watch(self, backend: Backend) -> None:
        turn = 0
        while True:
            await asyncio.sleep(self._settings.health.interval)
            turn += 1
            down = backend.condition.state(self._clock()) == "down"
            await self._probe(backend, read_models=down or turn % _READ_MODELS == 0)

    async def _retire(self, backend: Backend) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.drain):
                while backend.running:  # noqa: ASYNC110 - rare, and nobody waits for it
                    await asyncio.sleep(0.05)
        await backend.client.close()

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)
