# SPDX-License-Identifier: GPL-3.0-or-later
"""Serving an ASGI application on sockets that were given, and a gentle end of it: for every service of ours."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress

import uvicorn

from sophia.process import SOCKETS, Control, bind

__all__ = ["Server", "configure", "listeners", "new_loop", "serve"]

_LAME_DUCK = 2.0


class Server(uvicorn.Server):
    """Uvicorn with a gentler end.

    First it only stops accepting and calls `on_drain`: kept-alive connections can be told ``connection: close`` with
    their next answer, so that no request races against a closed connection. What is idle after two seconds is closed,
    the rest has until the drain's deadline.
    """

    def __init__(self, config: uvicorn.Config, on_drain: Callable[[], None] | None = None) -> None:
        super().__init__(config)
        self._on_drain = on_drain

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """uvicorn's own step of the end."""
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


async def serve(
    app: Callable[..., object],
    metrics_app: Callable[..., object],
    sockets: list[socket.socket],
    drain: float,
    control: Control,
    on_drain: Callable[[], None],
) -> None:
    """Serve the API on the first socket and the metrics on the second, until SIGTERM or until the parent is gone.

    Requests under way at the end have `drain` seconds; `on_drain` is called when it begins.
    """

    def draining() -> None:
        on_drain()
        control.say("draining")

    api = Server(configure(app, drain), draining)
    metrics = Server(configure(metrics_app, 1))
    orphaned = asyncio.create_task(control.orphaned(), name="parent watch")
    orphaned.add_done_callback(lambda task: None if task.cancelled() else api.handle_exit(signal.SIGTERM, None))
    serving = asyncio.create_task(metrics._serve(sockets[1:2]), name="metrics")
    control.say("ready")
    await api.serve(sockets=sockets[:1])
    metrics.should_exit = True
    orphaned.cancel()
    await serving


def configure(app: Callable[..., object], drain: float) -> uvicorn.Config:
    """uvicorn's configuration; requests under way at the end have `drain` seconds."""
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


def listeners(*addresses: str) -> list[socket.socket]:
    """The sockets that the parent holds (`process.Parent`), or, without one, new ones for the addresses.

    Raises:
        OSError: an address is in use or not ours.
    """
    inherited = os.environ.pop(SOCKETS, None)
    if not inherited:
        return [bind(address) for address in addresses]
    return [socket.socket(fileno=int(descriptor)) for descriptor in inherited.split(",")]


def new_loop() -> asyncio.AbstractEventLoop:
    """An event loop of the kind that our services run on."""
    import uvloop

    return uvloop.new_event_loop()
