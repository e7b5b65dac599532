# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in for the Qdrant server: its REST API over the vendor's own engine, `qdrant-edge-py`.

Not the server's binary, and never compared with one here. It needs the extra `qdrant-sandbox`.
"""

from __future__ import annotations

from .app import create_app
from .config import Config
from .server import serve

__all__ = ["Config", "create_app", "serve"]
