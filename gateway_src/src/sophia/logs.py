# SPDX-License-Identifier: GPL-3.0-or-later
"""JSON logs, one object a line on standard error; no secrets, no prompts.

What is logged about a request is what `access` names; texts of third parties (upstream errors) are cut short, and
anything that looks like a key is masked wherever it stands.
"""

from __future__ import annotations

import logging
import re
import sys
import time
from typing import Any

import msgspec

__all__ = ["AccessLog", "configure", "mask"]

_SECRET = re.compile(r"\b(sk-(?:or-v1|sophia|ant|proj)-|Bearer\s+)[A-Za-z0-9_\-.]{8,}")
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_ENCODER = msgspec.json.Encoder(enc_hook=str)


def mask(text: str) -> str:
    """The text with everything that looks like a key cut out."""
    return _SECRET.sub(lambda found: f"{found[1]}***", text)


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "at": _instant(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": mask(record.getMessage()),
        }
        for name, value in vars(record).items():
            if name not in _STANDARD:
                line[name] = mask(value) if isinstance(value, str) else value
        if record.exc_info:
            line["exception"] = mask(self.formatException(record.exc_info))
        return _ENCODER.encode(line).decode()


def configure(level: str) -> None:
    """Send all logging to standard error as JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    logging.getLogger("aiosqlite").setLevel(logging.WARNING)


class AccessLog:
    """One line per answered request, where `enabled`; past the logging machinery, for it is on every request's way."""

    def __init__(self, enabled: bool) -> None:
        self.enabled = enabled
        self._out = sys.stderr.buffer

    def write(self, **fields: Any) -> None:
        """Write a line."""
        line = {"at": _instant(time.time()), "level": "info", "logger": "access"} | fields
        self._out.write(_ENCODER.encode(line) + b"\n")
        self._out.flush()


def _instant(seconds: float) -> str:
    whole = int(seconds)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f".{int((seconds - whole) * 1000):03d}Z"
