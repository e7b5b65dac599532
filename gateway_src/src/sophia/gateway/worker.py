# SPDX-License-Identifier: GPL-3.0-or-later
"""A gateway process: serves the API and the metrics on sockets it was given, until it is told to drain."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import uvicorn

from sophia import logs
from sophia.gateway.service import Service
from sophia.process import SOCKETS, Control, bind
from sophia.settings import Settings, SettingsError, load

__all__ = ["run"]

_LOG = logging.getLogger(__name__)

_LAME_DUCK = 2.0


class _Server(uvicorn.Server):
    """Uvicorn with a gentler end.

    First it only stops accepting: kept-alive connections get ``connection: close`` with their next answer, so that
    no request races against a closed connection. What is idle after two seconds is closed, the rest has until the
    drain's deadline.
    """

    def __init__(self, config: uvicorn.Config, on_drain: Callable[[], None] | None = None) -> None:
        super().__init__(config)
        self._on_drain = on_drain

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._on_drain is not None:
            for server in self.servers:
                server.close()
            for listener in sockets or []:
                listener.close()
            self._on_drain()
            with suppress(TimeoutError):
                async with asyncio.timeout(_LAME_DUCK):
                    await self._emptied()
        await super().shutdown([])

    async def _emptied(self) -> None:
        while self.server_state.connections and not self.force_exit:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.02)


async def _serve(settings: Settings, path: Path) -> None:
    control = Control()
    sockets = _sockets(settings)
    service = Service(settings)
    try:
        await service.open()
        await control.may_serve()
        await service.take_over()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, lambda: service.reload(_reloaded(path, settings)))

        def draining() -> None:
            service.draining = True
            control.say("draining")

        gateway = _Server(_config(service.app, settings.drain), draining)
        metrics = _Server(_config(service.metrics_app, 1))
        orphaned = asyncio.create_task(control.orphaned(), name="parent watch")
        orphaned.add_done_callback(lambda task: None if task.cancelled() else gateway.handle_exit(signal.SIGTERM, None))
        serving = asyncio.create_task(metrics._serve(sockets[1:2]), name="metrics")
        control.say("ready")
        await gateway.serve(sockets=sockets[:1])
        metrics.should_exit = True
        orphaned.cancel()
        await serving
    finally:
        await service.close()


def _config(app: Callable[..., object], drain: float) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        interface="asgi3",
        http="httptools",
        loop="uvloop",
        ws="none",
        lifespan="off",
        access_log=False,
        proxy_headers=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=int(max(1, drain)),
        timeout_keep_alive=75,
        backlog=4096,
    )


def _sockets(settings: Settings) -> list[socket.socket]:
    """The API's and the metrics' listener. Workers share the first; each has metrics of its own, on the next port."""
    inherited = os.environ.pop(SOCKETS, None)
    if not inherited:
        return [bind(settings.listen), bind(settings.metrics_listen)]
    listen, metrics = [socket.socket(fileno=int(descriptor)) for descriptor in inherited.split(",")]
    number = int(os.environ.get("SOPHIA_WORKER", "0"))
    if number:
        metrics.close()
        host, _, port = settings.metrics_listen.rpartition(":")
        metrics = bind(f"{host}:{int(port) + number}")
    return [listen, metrics]


def _reloaded(path: Path, current: Settings) -> Settings:
    try:
        return load(path)
    except SettingsError as error:
        _LOG.error("configuration not reloaded", extra={"problems": error.problems})
        return current


def run(settings: Settings, path: Path) -> None:
    """Serve until SIGTERM; `path` is read again on SIGHUP."""
    logs.configure(settings.log_level)
    with asyncio.Runner(loop_factory=_loop_factory) as runner:
        runner.run(_serve(settings, path))


def _loop_factory() -> asyncio.AbstractEventLoop:
    import uvloop

    return uvloop.new_event_loop()
