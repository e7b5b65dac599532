# SPDX-License-Identifier: GPL-3.0-or-later
"""The router put together: what it stands on, opened in order, closed in reverse."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from sophia.errors import NotFound
from sophia.fairness.queue import FairQueue
from sophia.gateway.asgi import Receive, Scope, Send, respond
from sophia.gateway.upstream_http1 import Http1Upstream
from sophia.logs import AccessLog
from sophia.router.app import Router
from sophia.router.choice import Rules
from sophia.router.dispatch import Dispatcher, Overflow
from sophia.router.fleet import Fleet
from sophia.router.metrics import CONTENT_TYPE, Metrics, Snapshot
from sophia.router.schedule import Schedule
from sophia.router.settings import Settings, secret
from sophia.settings import UpstreamSettings

__all__ = ["Service"]

_LOG = logging.getLogger(__name__)


class Service:
    """One router process' parts. `clock` gives monotonic seconds."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self.settings = settings
        self.draining = False
        self._reloading: asyncio.Task[None] | None = None
        self._retired: set[asyncio.Task[None]] = set()
        self.metrics = Metrics()
        self.fleet = Fleet(settings, clock)
        self.schedule = Schedule(
            self.fleet,
            FairQueue(settings.queue.requests, settings.queue.weights),
            _rules(settings),
            self.metrics,
            clock,
        )
        self.dispatcher = Dispatcher(settings, self.fleet, self.schedule, _overflow(settings), self.metrics, clock)
        self.app = Router(
            settings,
            secret(settings.key_file),
            self.fleet,
            self.dispatcher,
            self.metrics,
            AccessLog(settings.access_log),
            lambda: self.draining,
        )
        self.metrics.watch(self._snapshot)

    async def open(self) -> None:
        """Probe the backends once, then go on probing. A backend that is down keeps nobody from starting."""
        await self.fleet.open()

    def drain(self) -> None:
        """Be ready no more; what is under way goes on."""
        self.draining = True

    async def close(self) -> None:
        """Stop."""
        if self._reloading is not None:
            await asyncio.gather(self._reloading, return_exceptions=True)
        for task in self._retired:
            task.cancel()
        await asyncio.gather(*self._retired, return_exceptions=True)
        await self.fleet.close()
        if self.dispatcher.overflow is not None:
            await self.dispatcher.overflow.client.close()

    def reload(self, settings: Settings) -> None:
        """Use new settings from now on; addresses and the queue's contents stay as they are."""
        self._reloading = asyncio.create_task(self._reload(settings, self._reloading), name="reload")

    async def _reload(self, settings: Settings, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.gather(before, return_exceptions=True)
        self.settings = settings
        queue = self.schedule.queue
        queue.limit, queue.weights = settings.queue.requests, settings.queue.weights
        self.schedule.rules = _rules(settings)
        old, self.dispatcher.overflow = self.dispatcher.overflow, _overflow(settings)
        if old is not None:
            task = asyncio.create_task(_retire(old, settings.drain), name="retire overflow")
            self._retired.add(task)
            task.add_done_callback(self._retired.discard)
        self.dispatcher.settings = self.app.settings = settings
        self.app.key = secret(settings.key_file)
        await self.fleet.reload(settings)
        _LOG.info("configuration reloaded", extra={"backends": [backend.name for backend in settings.backends]})

    async def metrics_app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """`GET /metrics`."""
        if scope["type"] != "http":
            return
        if scope["path"] != "/metrics":
            error = NotFound("unknown_path", "Only /metrics is here.")
            await respond(send, error.status, [(b"content-type", b"text/plain")], error.message.encode())
            return
        await respond(send, 200, [(b"content-type", CONTENT_TYPE.encode())], self.metrics.render())

    def _snapshot(self) -> Snapshot:
        queue = self.schedule.queue
        return Snapshot(len(queue), queue.cost, self.fleet.standings())


def _rules(settings: Settings) -> Rules:
    return Rules(settings.affinity.bound, settings.affinity.slack)


def _overflow(settings: Settings) -> Overflow | None:
    given = settings.overflow
    if given is None:
        return None
    key = secret(given.key_file) or ""
    client = Http1Upstream(
        UpstreamSettings(base_url=given.url, connect_timeout=settings.connect_timeout, connections=given.connections)
    )
    return Overflow(given, client, key)


async def _retire(overflow: Overflow, seconds: float) -> None:
    """Close a client that gets no more requests, once its last ones have had their time."""
    try:
        await asyncio.sleep(seconds)
    finally:
        await overflow.client.close()
