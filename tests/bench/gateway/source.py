# SPDX-License-Identifier: GPL-3.0-or-later
"""An upstream for streams: a raw HTTP/1.1 server that is quicker than any gateway before it.

    python -m tests.bench.gateway.source PORT MODELS CHUNKS PACE

A stream has CHUNKS pieces of content, PACE seconds apart (0: ten at a time, at once); each says at which nanosecond of
the monotonic clock it was sent. What is not a stream gets one fixed answer, `/models` the file MODELS.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

import uvloop

from tests.bench.gateway.peers import ANSWER, MODEL

_AT_ONCE = 10
_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nx-generation-id: gen-1795500169-kjkFwNzRHvdJgzDq7vL0\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)


def _event(delta: dict[str, str], finish: str | None = None, **more: object) -> bytes:
    chunk = {
        "id": ANSWER["id"],
        "provider": "OpenAI",
        "model": MODEL,
        "object": "chat.completion.chunk",
        "created": 1795500169,
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish, "native_finish_reason": finish}],
    }
    return _framed(b"data: " + json.dumps(chunk | more).encode() + b"\n\n")


def _framed(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


_LAST = (
    _event({"role": "assistant", "content": ""}, "stop")
    + _event({"role": "assistant", "content": ""}, usage=ANSWER["usage"])
    + _framed(b"data: [DONE]\n\n")
    + b"0\r\n\r\n"
)
_BEFORE, _AFTER = _event({"role": "assistant", "content": "@" * 20}).split(b"@" * 20)


class Source(asyncio.Protocol):
    """One connection."""

    def __init__(self, models: bytes, chunks: int, pace: float) -> None:
        self._models = _whole(models)
        self._answer = _whole(json.dumps(ANSWER).encode())
        self._chunks = chunks
        self._pace = pace
        self._buffer = b""
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A gateway has connected."""
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        """A request, or a part of one; no pipelining."""
        self._buffer += data
        head, end, body = self._buffer.partition(b"\r\n\r\n")
        if not end:
            return
        length = next(
            (int(line.partition(b":")[2]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
        )
        if len(body) < length:
            return
        self._buffer = b""
        if head.startswith(b"GET"):
            self._transport.write(self._models)
        elif b'"stream":true' in body or b'"stream": true' in body:
            self._transport.write(_HEAD)
            self._go_on(self._chunks)
        else:
            self._transport.write(self._answer)

    def _go_on(self, left: int) -> None:
        if self._transport.is_closing():
            return
        count = min(left, 1 if self._pace else _AT_ONCE)
        stamp = b"%020d" % time.monotonic_ns()
        self._transport.write((_BEFORE + stamp + _AFTER) * count)
        if left <= count:
            self._transport.write(_LAST)
        elif self._pace:
            self._loop.call_later(self._pace, self._go_on, left - count)
        else:
            self._loop.call_soon(self._go_on, left - count)


def _whole(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)


async def _serve(port: int, models: bytes, chunks: int, pace: float) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Source(models, chunks, pace), "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1]), Path(sys.argv[2]).read_bytes(), int(sys.argv[3]), float(sys.argv[4])))
