# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in for `vllm serve`: its OpenAI-compatible API, health and metrics, a modelled engine, faults on demand.

No model runs in it. Texts are made up; what is modelled is what a router can see: the batch, the waiting queue, the
pace of prefill and decoding, and the prefix cache.
"""

from __future__ import annotations

from .app import Application, create_app
from .config import Config
from .server import serve

__all__ = ["Application", "Config", "create_app", "serve"]
