# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in for Lambda Cloud's HTTP API: stateful, billing by the second, honest about faults.

`Cloud(config).handle(request)` is the API without a network, `create_app(config)` the ASGI application around it,
`serve(host, port, config)` runs that. `docs/sandbox-lambda-cloud.md` says what is faithful and what is not.
"""

from __future__ import annotations

from .app import Application, create_app
from .cloud import Cloud
from .config import API_KEY, Config
from .server import serve
from .wire import Answer, Request

__all__ = ["API_KEY", "Answer", "Application", "Cloud", "Config", "Request", "create_app", "serve"]
