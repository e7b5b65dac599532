# SPDX-License-Identifier: GPL-3.0-or-later
"""One request and its answer over raw ASGI, with the faults that happen on the wire."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import TypeVar
from urllib.parse import parse_qsl

import msgspec
import orjson

from sophia.sandbox import wire
from sophia.sandbox.wire import ConnectionGone, Receive, Scope, Send

from .errors import ServiceError
from .faults import Fault

__all__ = ["ConnectionGone", "Exchange", "Receive", "Scope", "Send"]

Body = TypeVar("Body")

# The server writes a 32-bit float as the shortest decimal that reads back the same; so does orjson for NumPy's.
_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS


class Exchange:
    """A request as it comes in and the answer as it goes out; `fault`, once set, changes how the answer goes out."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.raw_path: str = scope.get("raw_path", scope["path"].encode()).decode("latin-1").partition("?")[0]
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.fault: Fault | None = None
        self.started = time.perf_counter()
        self._receive = receive
        self._send = send

    def header(self, name: bytes) -> str | None:
        """A header of the request; `name` is lower case."""
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")

    def parameters(self) -> dict[str, str]:
        """The query's parameters, the last of each name."""
        raw: bytes = self.scope["query_string"]
        return dict(parse_qsl(raw.decode("latin-1"), keep_blank_values=True)) if raw else {}

    async def parts(self) -> AsyncIterator[bytes]:
        """The request's body as it comes. Raises `ConnectionGone` when it is never whole."""
        more = True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ConnectionGone
            yield message.get("body", b"")
            more = bool(message.get("more_body"))

    async def body(self, limit: int) -> bytes:
        """The whole body. Raises `ServiceError` 413 past `limit` bytes."""
        parts, length = [], 0
        async for part in self.parts():
            length += len(part)
            parts.append(part)
        if length > limit:
            raise ServiceError(413, f"Payload error: JSON payload ({length} bytes) is larger than allowed ({limit}).")
        return b"".join(parts)

    async def read(self, kind: type[Body], limit: int) -> Body:
        """The body as `kind`. Raises `ServiceError` 400 for what is not of that shape."""
        raw = await self.body(limit)
        try:
            return msgspec.convert(orjson.loads(raw or b"{}"), kind)
        except (orjson.JSONDecodeError, msgspec.ValidationError) as error:
            raise ServiceError(400, f"Format error in JSON body: {error}") from error

    async def result(self, value: object) -> None:
        """Answer with a success."""
        seconds = time.perf_counter() - self.started
        await self.reply({"result": value, "status": "ok", "time": seconds})

    async def refuse(self, error: ServiceError) -> None:
        """Answer with a failure."""
        seconds = time.perf_counter() - self.started
        headers = [] if error.retry_after is None else [(b"retry-after", f"{error.retry_after:g}".encode())]
        await self.reply({"status": {"error": error.message}, "time": seconds}, error.status, headers)

    async def reply(self, body: object, status: int = 200, headers: list[tuple[bytes, bytes]] | None = None) -> None:
        """Answer with JSON, or with bytes as they are."""
        kind = b"application/octet-stream" if isinstance(body, bytes) else b"application/json"
        payload = body if isinstance(body, bytes) else orjson.dumps(body, option=_OPTIONS)
        fields = [(b"content-type", kind), (b"content-length", b"%d" % len(payload)), *(headers or [])]
        fault = self.fault
        if fault is not None and fault.kind == "reset_after_accept":
            await self.cut(reset=True)
        if fault is not None and fault.kind == "timeout_after_success":
            await wire.gone(self._receive)
            raise ConnectionGone
        await self._send({"type": "http.response.start", "status": status, "headers": fields})
        if fault is not None and fault.kind == "cut":
            await self._send({"type": "http.response.body", "body": payload[: len(payload) // 2], "more_body": True})
            await self.cut(reset=False)
        await self._send({"type": "http.response.body", "body": payload})

    async def linger(self, seconds: float) -> None:
        """Let time pass."""
        await asyncio.sleep(seconds)

    async def cut(self, *, reset: bool) -> None:
        """See `sophia.sandbox.wire.cut`."""
        await wire.cut(self.scope, self._receive, reset=reset)
