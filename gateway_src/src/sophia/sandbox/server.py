# SPDX-License-Identifier: GPL-3.0-or-later
"""Running a stand-in: uvicorn on uvloop and httptools, with access to the connection for faults that cut it."""

from __future__ import annotations

import logging
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["configure", "run"]

# A fault that ends an answer early is what was asked for; uvicorn would call it an error of the application.
_ON_PURPOSE = ("ASGI callable returned without",)


class _Protocol(HttpToolsProtocol):
    """uvicorn's protocol; the scope carries the transport as the extension `sophia.transport`."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        scope: dict[str, Any] = self.scope  # type: ignore[assignment]
        scope["extensions"] = {"sophia.transport": self.transport}


class _Quiet(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(_ON_PURPOSE)


def configure(app: Any, host: str, port: int, *, keep_alive: int = 75, graceful: int = 5) -> uvicorn.Config:
    """The server's configuration, for callers that run it in a loop of their own.

    `keep_alive`: how long an idle connection stays (s); `graceful`: how long a shutdown waits for requests (s).
    """
    logging.getLogger("uvicorn.error").addFilter(_Quiet())
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        http=_Protocol,
        loop="uvloop",
        ws="none",
        lifespan="on",
        access_log=False,
        log_level="warning",
        server_header=False,
        date_header=False,
        backlog=4096,
        timeout_keep_alive=keep_alive,
        timeout_graceful_shutdown=graceful,
    )


def run(config: uvicorn.Config) -> None:
    """Serve until a signal ends it. Port 0 takes a free one, which is printed as `listening on http://HOST:PORT`."""
    _Announcing(config).run()


class _Announcing(uvicorn.Server):
    async def startup(self, sockets: list[Any] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            print(f"listening on http://{host}:{port}", flush=True)
