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
from sophia.server import listeners, new_loop, serve
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

        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)
        await serve(service.app, service.metrics_app, sockets, settings.drain, control, service.drain)
    finally:
        await service.close()


def run(settings: Settings, path: Path) -> None:
    """Serve until SIGTERM; `path` is read again on SIGHUP."""
    logs.configure(settings.log_level)
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(_serve(settings, path))
