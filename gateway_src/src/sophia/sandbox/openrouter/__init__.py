# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in for OpenRouter's HTTP API: stateful, exact about money, honest about faults.

`create_app(config)` is the ASGI application, `serve(host, port, config)` runs it. `docs/sandbox-openrouter.md` says
what is faithful and what is not.
"""

from __future__ import annotations

from .app import Application, create_app
from .config import INFERENCE_KEY, MANAGEMENT_KEY, Config
from .server import serve

__all__ = ["INFERENCE_KEY", "MANAGEMENT_KEY", "Application", "Config", "create_app", "serve"]
