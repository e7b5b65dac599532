# SPDX-License-Identifier: GPL-3.0-or-later
"""Running the stand-in: uvicorn, with access to the connection for faults that cut it."""

from __future__ import annotations

import logging
from typing import Any

import uvicorn

from sophia.sandbox.openrouter.server import Protocol

from .app import create_app
from .config import Config

__all__ = ["serve", "settings"]

# A fault that gives no answer is what was asked for; uvicorn would call it an error of the application.
_ON_PURPOSE = ("ASGI callable returned without",)


class _Quiet(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(_ON_PURPOSE)


def settings(config: Config, host: str, port: int) -> uvicorn.Config:
    """The server's configuration, for callers that run it in a loop of their own."""
    logging.getLogger("uvicorn.error").addFilter(_Quiet())
    return uvicorn.Config(
        create_app(config),
        host=host,
        port=port,
        http=Protocol,
        loop="uvloop",
        ws="none",
        lifespan="on",
        access_log=False,
        log_level="warning",
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=2,
    )


def serve(host: str = "127.0.0.1", port: int = 8788, config: Config | None = None) -> None:
    """Serve until a signal ends it. Port 0 takes a free one, which is printed as `listening on http://HOST:PORT`."""
    _Announcing(settings(config or Config(), host, port)).run()


class _Announcing(uvicorn.Server):
    async def startup(self, sockets: list[Any] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            print(f"listening on http://{host}:{port}", flush=True)
