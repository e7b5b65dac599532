# SPDX-License-Identifier: GPL-3.0-or-later
"""Sophia: a multi-tenant LLM gateway in front of OpenRouter, and the services around it."""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
