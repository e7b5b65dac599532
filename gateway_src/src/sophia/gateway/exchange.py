# SPDX-License-Identifier: GPL-3.0-or-later
"""One HTTP exchange on the hot routes: what arrived, and the answer on its way."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from sophia.gateway.asgi import Headers, Receive, Scope, Send, header
from sophia.gateway.dialects import CHAT, Dialect
from sophia.gateway.trace import Span
from sophia.stores.model import Principal, new_id

if TYPE_CHECKING:
    from sophia.gateway.idempotency import Recording

__all__ = ["Exchange"]

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:\-]{1,128}")


class Exchange:
    """What the edge notes of a request while it is served. `key` is its key's SHA-256."""

    __slots__ = (
        "code",
        "cost",
        "dialect",
        "identity",
        "key",
        "model",
        "principal",
        "receive",
        "received",
        "recording",
        "scope",
        "send",
        "span",
        "started",
        "status",
        "stopped",
        "waited",
        "wall",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send, span: Span) -> None:
        self.scope = scope
        self.span = span
        self.receive = receive
        self.send = send
        self.received = time.monotonic()
        self.wall = time.perf_counter()
        self.identity = _identity(scope)
        self.dialect: Dialect = CHAT
        self.principal: Principal | None = None
        self.model = "-"
        self.status = 0
        self.code: str | None = None
        self.cost: int | None = None
        self.waited = 0.0
        self.started = False
        self.stopped = False
        self.recording: Recording | None = None
        self.key = b""

    def headers(self, *more: tuple[bytes, bytes]) -> Headers:
        """The headers of every answer, and some more."""
        return [(b"x-request-id", self.identity.encode()), *more]

    def overhead(self) -> bytes:
        """The gateway's own share of the time so far (ms)."""
        return b"%.3f" % max(0.0, (time.perf_counter() - self.wall - self.waited) * 1000)


def _identity(scope: Scope) -> str:
    given = header(scope, b"x-request-id")
    return given if given is not None and _REQUEST_ID.fullmatch(given) else new_id("req")
