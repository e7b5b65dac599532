# SPDX-License-Identifier: GPL-3.0-or-later
"""A router process: serves the API and the metrics on sockets it was given, until it is told to drain."""

from __future__ import annotations

import asyncio
import logging
import signal
from pathlib import Path

from sophia import logs
from sophia.process import Control
from sophia.router.service import Service
from sophia.router.settings import Settings, load
from sophia.server import Server, configure, listeners, new_loop
from sophia.settings import SettingsError

__all__ = ["run"]

_LOG = logging.getLogger(__name__)


async def _serve(settings: Settings, path: Path) -> None:
    control = Control()
    sockets = listeners(settings.listen, settings.metrics_listen)
    service = Service(settings)
    try:
        await service.open()
        await control.may_serve()

        def reload() -> None:
            try:
                service.reload(load(path))
            except SettingsError as error:
                _LOG.error("configuration not reloaded", extra={"problems": error.problems})

        def draining() -> None:
            service.draining = True
            control.say("draining")

        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)
        router = Server(configure(service.app, settings.drain), draining)
        metrics = Server(configure(service.metrics_app, 1))
        orphaned = asyncio.create_task(control.orphaned(), name="parent watch")
        orphaned.add_done_callback(lambda task: None if task.cancelled() else router.handle_exit(signal.SIGTERM, None))
        serving = asyncio.create_task(metrics._serve(sockets[1:2]), name="metrics")
        control.say("ready")
        await router.serve(sockets=sockets[:1])
        metrics.should_exit = True
        orphaned.cancel()
        await serving
    finally:
        await service.close()


def run(settings: Settings, path: Path) -> None:
    """Serve until SIGTERM; `path` is read again on SIGHUP."""
    logs.configure(settings.log_level)
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(_serve(settings, path))
