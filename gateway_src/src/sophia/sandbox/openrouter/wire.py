# SPDX-License-Identifier: GPL-3.0-or-later
"""One request and its answer over raw ASGI, with the faults that happen on the wire."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from urllib.parse import parse_qsl

import msgspec

from sophia.sandbox import wire
from sophia.sandbox.wire import ConnectionGone, Receive, Scope, Send

from .errors import VendorError
from .faults import Fault
from .records import Key

__all__ = ["ConnectionGone", "Exchange", "Receive", "ResetNow", "Scope", "Send", "encode"]

# Decimal as a JSON number: money never passes through a float.
encode = msgspec.json.Encoder(decimal_format="number").encode

_JSON = (b"content-type", b"application/json")
_SSE = (b"content-type", b"text/event-stream; charset=utf-8")


class ResetNow(Exception):
    """A fault asks for the connection to be reset before anything has been done."""


class Exchange:
    """A request as it comes in and the answer as it goes out.

    `fault`, once set, changes how the answer goes out: `slow_headers`, `trickle`, `reset_after_accept` and
    `timeout_after_success` take effect here, whatever the answer is.
    """

    __slots__ = (
        "_gone",
        "_receive",
        "_send",
        "_watch",
        "fault",
        "headers",
        "key",
        "method",
        "path",
        "reply_headers",
        "scope",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.key: Key | None = None
        self.fault: Fault | None = None
        self.reply_headers: list[tuple[bytes, bytes]] = []
        self._receive = receive
        self._send = send
        self._gone = False
        self._watch: asyncio.Task[None] | None = None

    def header(self, name: bytes) -> str | None:
        """A header of the request; `name` is lower case."""
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")

    def parameters(self) -> dict[str, str]:
        """The query's parameters, the last of each name."""
        raw: bytes = self.scope["query_string"]
        return dict(parse_qsl(raw.decode("latin-1"), keep_blank_values=True)) if raw else {}

    async def body(self, limit: int) -> bytes:
        """The request's body. Raises `VendorError` 413 past `limit` bytes, `ConnectionGone` when it is never whole."""
        message = await self._receive()
        body: bytes = message.get("body", b"")
        if not message.get("more_body"):
            if message["type"] == "http.disconnect":
                raise ConnectionGone
            return body
        parts, length = [body], len(body)
        while message.get("more_body"):
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ConnectionGone
            parts.append(message.get("body", b""))
            length += len(parts[-1])
            if length > limit:
                raise VendorError(413)
        return b"".join(parts)

    async def reply(self, body: object, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        """Answer with JSON."""
        payload = encode(body)
        fields = [_JSON, (b"content-length", b"%d" % len(payload)), *self.reply_headers]
        if headers:
            fields.extend((name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items())
        if self.fault is not None:
            await self._reply_badly(status, fields, payload, self.fault)
            return
        await self._send({"type": "http.response.start", "status": status, "headers": fields})
        await self._send({"type": "http.response.body", "body": payload})

    async def _reply_badly(self, status: int, fields: list[tuple[bytes, bytes]], payload: bytes, fault: Fault) -> None:
        if fault.kind == "stall":
            await self._linger(fault.seconds)
        await self._start(status, fields)
        if fault.kind == "trickle":
            await self._trickle(payload, fault.seconds)
            payload = b""
        elif fault.kind == "cut":
            await self._send({"type": "http.response.body", "body": payload[: len(payload) // 2], "more_body": True})
            await self.cut(reset=False)
        elif fault.kind == "malformed_chunk":
            payload = payload[:-2] + b"  "
        await self._send({"type": "http.response.body", "body": payload})

    async def start_stream(self) -> None:
        """Answer with 200 and a stream of events, and watch from now on whether the client is still there."""
        await self._start(200, [_SSE, (b"cache-control", b"no-cache"), *self.reply_headers])
        self._watch = asyncio.create_task(self._wait_gone())

    async def chunk(self, data: bytes) -> None:
        """Send a part of the stream."""
        if self.fault is not None and self.fault.kind == "trickle":
            await self._trickle(data, self.fault.seconds)
        else:
            await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end_stream(self) -> None:
        """End the stream as HTTP does."""
        await self._send({"type": "http.response.body", "body": b""})
        self.stop_watching()

    @property
    def gone(self) -> bool:
        """Whether the client of a stream has gone."""
        return self._gone

    async def pause(self, seconds: float) -> None:
        """Let time pass; a stream's pause ends early when the client goes."""
        if seconds <= 0:
            await asyncio.sleep(0)
        elif self._watch is None:
            await asyncio.sleep(seconds)
        else:
            await asyncio.wait((self._watch,), timeout=seconds)

    def stop_watching(self) -> None:
        """End the task that watches the client."""
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    async def cut(self, *, reset: bool) -> None:
        """See `sophia.sandbox.wire.cut`."""
        self.stop_watching()
        await wire.cut(self.scope, self._receive, reset=reset)

    async def _start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        fault = self.fault
        if fault is not None:
            if fault.kind == "slow_headers":
                await self._linger(fault.seconds)
            elif fault.kind == "reset_after_accept":
                await self.cut(reset=True)
            elif fault.kind == "timeout_after_success":
                await self._wait_gone()
                raise ConnectionGone
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def _linger(self, seconds: float) -> None:
        """Let time pass before the headers. Raises `ConnectionGone` when the client does not wait for them."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._wait_gone(), seconds)
            raise ConnectionGone

    async def _trickle(self, data: bytes, seconds: float) -> None:
        for i in range(len(data)):
            if self._gone:
                return
            await self._send({"type": "http.response.body", "body": data[i : i + 1], "more_body": True})
            await self.pause(seconds)

    async def _wait_gone(self) -> None:
        await wire.gone(self._receive)
        self._gone = True
