# SPDX-License-Identifier: GPL-3.0-or-later
"""One request and its answer over raw ASGI, with the faults that happen on the wire."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TypeVar

import msgspec

from sophia.sandbox import wire
from sophia.sandbox.wire import ConnectionGone, Receive, Scope, Send

from .errors import ServiceError
from .faults import Fault

__all__ = ["ConnectionGone", "Exchange", "Receive", "Scope", "Send"]

Body = TypeVar("Body")

_JSON = (b"content-type", b"application/json")
_SSE = (b"content-type", b"text/event-stream; charset=utf-8")


class Exchange:
    """A request as it comes in and the answer as it goes out; `fault`, once set, changes how the answer goes out."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.fault: Fault | None = None
        self._receive = receive
        self._send = send
        self._chunks = 0

    def header(self, name: bytes) -> str | None:
        """A header of the request; `name` is lower case."""
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")

    async def read(self, kind: type[Body], limit: int) -> Body:
        """The body as `kind`. Raises `ServiceError` for what is too long or not of that shape."""
        parts: list[bytes] = []
        length = 0
        more = True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ConnectionGone
            parts.append(message.get("body", b""))
            length += len(parts[-1])
            more = bool(message.get("more_body"))
        if length > limit:
            raise ServiceError(413, f"The body is larger than {limit} bytes")
        try:
            return msgspec.json.decode(b"".join(parts) or b"{}", type=kind)
        except msgspec.MsgspecError as error:
            raise ServiceError(400, f"1 validation error: {error}") from error

    async def reply(self, body: object, status: int = 200, headers: list[tuple[bytes, bytes]] | None = None) -> None:
        """Answer with JSON, or with bytes as they are."""
        payload = body if isinstance(body, bytes) else msgspec.json.encode(body)
        fields = [*(headers or [_JSON]), (b"content-length", b"%d" % len(payload))]
        fault = self.fault
        if fault is not None and fault.kind == "stall":
            await self.pause(fault.seconds)
        await self._send({"type": "http.response.start", "status": status, "headers": fields})
        if fault is not None and fault.kind == "cut":
            await self._send({"type": "http.response.body", "body": payload[: len(payload) // 2], "more_body": True})
            await self.cut(reset=False)
        await self._send({"type": "http.response.body", "body": payload})

    async def start_stream(self) -> None:
        """Answer with 200 and a stream of events."""
        await self._send({"type": "http.response.start", "status": 200, "headers": [_SSE]})

    async def event(self, body: object) -> None:
        """Send an event of the stream."""
        fault = self.fault
        if fault is not None and self._chunks == fault.after:
            if fault.kind == "cut":
                await self.cut(reset=False)
            elif fault.kind == "stall":
                await self.pause(fault.seconds)
            elif fault.kind == "error":
                raise ServiceError(fault.status, "the engine failed on purpose")
        self._chunks += 1
        await self._write(msgspec.json.encode(body))

    async def end_stream(self, error: ServiceError | None = None) -> None:
        """End the stream; an error goes before `[DONE]`, as the server sends it."""
        if error is not None:
            await self._write(msgspec.json.encode(error.body()))
        await self._write(b"[DONE]")
        await self._send({"type": "http.response.body", "body": b""})

    async def pause(self, seconds: float) -> None:
        """Let time pass. Raises `ConnectionGone` when the client does not wait."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.gone(), seconds)
            raise ConnectionGone

    async def gone(self) -> None:
        """Return when the client has gone."""
        await wire.gone(self._receive)

    async def cut(self, *, reset: bool) -> None:
        """See `sophia.sandbox.wire.cut`."""
        await wire.cut(self.scope, self._receive, reset=reset)

    async def _write(self, data: bytes) -> None:
        await self._send({"type": "http.response.body", "body": b"data: " + data + b"\n\n", "more_body": True})
