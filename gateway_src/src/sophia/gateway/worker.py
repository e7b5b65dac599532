# SPDX-License-Identifier: GPL-3.0-or-later
"""A gateway process: serves the API and the metrics on sockets it was given, until it is told to drain."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from pathlib import Path

from sophia import logs
from sophia.gateway.service import Service
from sophia.process import Control, bind
from sophia.server import listeners, new_loop, serve
from sophia.settings import Settings, SettingsError, load

__all__ = ["run"]

_LOG = logging.getLogger(__name__)


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
        await serve(service.app, service.metrics_app, sockets, settings.drain, control, service.drain)
    finally:
        await service.close()


def _sockets(settings: Settings) -> list[socket.socket]:
    """The API's and the metrics' listener. Workers share the first; each has metrics of its own, on the next port."""
    listen, metrics = listeners(settings.listen, settings.metrics_listen)
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
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(_serve(settings, path))
