# SPDX-License-Identifier: GPL-3.0-or-later
"""Running the stand-in."""

from __future__ import annotations

import uvicorn

from sophia.sandbox.server import configure, run

from .app import create_app
from .config import Config

__all__ = ["serve", "settings"]


def settings(config: Config, host: str, port: int) -> uvicorn.Config:
    """The server's configuration, for callers that run it in a loop of their own."""
    return configure(create_app(config), host, port, keep_alive=5, graceful=2)


def serve(host: str = "127.0.0.1", port: int = 8788, config: Config | None = None) -> None:
    """Serve until a signal ends it. Port 0 takes a free one, which is printed as `listening on http://HOST:PORT`."""
    run(settings(config or Config(), host, port))
