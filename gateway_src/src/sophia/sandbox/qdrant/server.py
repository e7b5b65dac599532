# SPDX-License-Identifier: GPL-3.0-or-later
"""Running the stand-in."""

from __future__ import annotations

import gc

from sophia.sandbox.server import configure, run

from .app import create_app
from .config import Config

__all__ = ["serve"]

# Objects between two looks for garbage: a page of points makes thousands that no cycle holds.
GARBAGE_THRESHOLD = 100_000


def serve(host: str, port: int, config: Config) -> None:
    """Serve until a signal ends it. Port 0 takes a free one, which is printed as `listening on http://HOST:PORT`."""
    gc.set_threshold(GARBAGE_THRESHOLD)
    run(configure(create_app(config), host, port))
