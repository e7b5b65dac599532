# SPDX-License-Identifier: GPL-3.0-or-later
"""A stream from a backend to the client: each piece as it comes, an honest end.

A stream is whole when the server has said `[DONE]`. One that is cut, stalls, or says that it failed ends with an error
event and without `[DONE]`, so no client takes half an answer for a whole one. Nothing is passed on before the first
piece is there (`prime`), so until then the request can still be given to another backend.

::

    Broken      the stream failed before its first piece
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Literal, Protocol

import msgspec

from sophia.errors import Upstream
from sophia.gateway.sse import Event, Parser, encode
from sophia.gateway.upstream import Lost, Reply, Stalled

__all__ = ["Broken", "Ending", "Progress", "Relay", "used_tokens"]

Ending = Literal["ok", "cut", "stalled", "malformed", "error", "left"]

_DONE = b"[DONE]"
_TAIL = 0.25
_WORDS = {
    "cut": "The answer was cut off: what has arrived is incomplete.",
    "stalled": "The model sent nothing for too long: what has arrived is incomplete.",
    "malformed": "The model's stream became unreadable: what has arrived is incomplete.",
}


class Broken(Exception):
    """The stream failed before anything was passed on; `reason` as in `Ending`."""

    def __init__(self, reason: Ending) -> None:
        super().__init__(reason)
        self.reason = reason


class Progress(Protocol):
    """Who is told how far the answer is."""

    def begun(self) -> None:
        """The first piece is there."""

    def made(self, tokens: int) -> None:
        """More of the answer has come."""


class _Usage(msgspec.Struct):
    total_tokens: int = 0


class _Used(msgspec.Struct):
    usage: _Usage | None = None


_USED = msgspec.json.Decoder(_Used)


def used_tokens(data: bytes) -> int | None:
    """The total of an answer's or a chunk's `usage`; None where it has none."""
    if b'"usage"' not in data:
        return None
    try:
        usage = _USED.decode(data).usage
    except msgspec.MsgspecError:
        return None
    return usage.total_tokens if usage is not None else None


class Relay:
    """One stream. `ended` is called once, with how it ended and the tokens that the server counted."""

    def __init__(
        self, reply: Reply, idle: float, progress: Progress, ended: Callable[[Ending, int | None], None]
    ) -> None:
        self._reply = reply
        self._chunks = reply.chunks(idle)
        self._progress = progress
        self._ended = ended
        self._parser = Parser()
        self._ready = b""
        self._used: int | None = None
        self._done = False
        self._ending: Ending | None = None
        self._closed = False

    async def prime(self) -> None:
        """Wait for the first piece.

        Raises:
            Broken: it did not come; the stream is closed.
        """
        try:
            while not self._ready:
                self._ready = await self._next()
                if self._ending is not None:
                    raise Broken(self._ending)
        except BaseException:
            await self.close()
            raise
        self._progress.begun()

    async def pieces(self) -> AsyncIterator[bytes]:
        """What goes to the client, the last piece an end mark or an error event."""
        try:
            piece, self._ready = self._ready, b""
            while True:
                if piece:
                    yield piece
                if self._done or self._ending is not None:
                    break
                piece = await self._next()
            if self._ending in _WORDS:
                error = Upstream(f"stream_{self._ending}", f"{_WORDS[self._ending]} Send the request again.")
                yield encode(msgspec.json.encode(error.envelope()))
        finally:
            await self.close()

    async def close(self) -> None:
        """End the stream; before its end that makes the server stop."""
        if self._closed:
            return
        self._closed = True
        if self._done:
            # The body's end is due at once; with it read, the connection can serve again.
            with suppress(TimeoutError, Lost):
                async with asyncio.timeout(_TAIL):
                    await anext(self._chunks, None)
        await self._reply.close()
        self._ended("ok" if self._done else self._ending or "left", self._used)

    async def _next(self) -> bytes:
        """The bytes to pass on from the next chunk."""
        try:
            chunk = await anext(self._chunks, None)
        except Stalled:
            self._ending = "stalled"
            return b""
        except Lost:
            self._ending = "cut"
            return b""
        if chunk is None:
            self._ending = "cut"
            return b""
        pieces: list[bytes] = []
        try:
            for event in self._parser.feed(chunk):
                pieces.append(self._take(event))  # noqa: PERF401 - what came before an unreadable event is passed on
        except ValueError:
            self._ending = "malformed"
        return b"".join(pieces)

    def _take(self, event: Event) -> bytes:
        """Note what an event says; the bytes to pass on for it."""
        if self._done or self._ending is not None:
            return b""
        data = event.data
        if data is None:
            return event.raw
        if data == _DONE:
            self._done = True
            return event.raw
        if not data.startswith(b"{"):
            raise ValueError("an event is no JSON object")
        if data.startswith((b'{"error"', b'{"object":"error"')):
            self._ending = "error"
            return event.raw
        self._progress.made(1)
        used = used_tokens(data)
        if used is not None:
            self._used = used
        return event.raw
