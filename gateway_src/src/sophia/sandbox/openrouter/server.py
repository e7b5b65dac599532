# SPDX-License-Identifier: GPL-3.0-or-later
"""Running the stand-in."""

from __future__ import annotations

import gc

import uvicorn

from sophia.sandbox.server import configure, run

from .app import create_app
from .config import Config

__all__ = ["serve", "settings"]


def settings(config: Config, host: str, port: int) -> uvicorn.Config:
    """The server's configuration, for callers that run it in a loop of their own."""
    return configure(create_app(config), host, port)


def serve(host: str = "127.0.0.1", port: int = 8787, config: Config | None = None) -> None:
    """Serve until a signal ends it. Port 0 takes a free one, which is printed as `listening on http://HOST:PORT`."""
    configured = settings(config or Config(), host, port)
    # Records live long and hold no cycles: looking through all of them time and again would cost more than requests do.
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    run(configured)
