# SPDX-License-Identifier: GPL-3.0-or-later
"""`Upstream` on the event loop itself: HTTP/1.1 (RFC 9112) parsed by httptools, which the server side uses too.

No other thread takes part, so a request costs no hand-over between threads, and it is known exactly what was sent:
a connection that was never made is `NotSent`, whatever happens after the first byte of a request is `Lost`. A request
that is cancelled closes its connection at once, which tells the upstream to stop.

One connection carries one request at a time and is kept for the next where the answer came whole. Nothing is retried
and no redirect is followed. Answers are not compressed: none is asked for. Proxies are not supported (see
`service.open_client`).
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from typing import Any, cast
from urllib.parse import urlsplit

import httptools

from sophia.gateway.upstream import Lost, NotSent, Reply, Stalled, UpstreamFailure, together
from sophia.settings import UpstreamSettings

__all__ = ["Http1Upstream"]

_KEPT = 50.0
_HEAD_BYTES = 64 * 1024
_BODY_BYTES = 256 * 1024 * 1024
_AHEAD = 256 * 1024
_JOINED = 64 * 1024
_IDLE = 60.0


class Http1Upstream:
    """A pool of connections to one base URL. At most `settings.connections` are open; more requests wait their turn."""

    def __init__(self, settings: UpstreamSettings) -> None:
        base = urlsplit(settings.base_url.rstrip("/"))
        if base.hostname is None or base.scheme not in ("http", "https"):
            raise ValueError(f"upstream.base_url: {settings.base_url!r} is no http(s) URL")
        self._host = base.hostname
        self._port = base.port or (443 if base.scheme == "https" else 80)
        self._tls = _context() if base.scheme == "https" else None
        self._connect_timeout = settings.connect_timeout
        self._path = base.path
        self._host_line = f"host: {base.netloc.rpartition('@')[2]}\r\n"
        self._free = settings.connections
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._idle: list[_Connection] = []
        self._open: set[_Connection] = set()
        self._emptied: asyncio.Future[None] | None = None

    async def post(
        self, path: str, headers: Mapping[str, str], body: bytes, *, head_timeout: float, stream: bool
    ) -> Reply:
        """See `Upstream.post`."""
        head = f"POST {self._path}{path} HTTP/1.1\r\n{self._host_line}content-length: {len(body)}\r\n"
        return await self._ask(head, headers, body, head_timeout, stream)

    async def get(self, path: str, headers: Mapping[str, str], *, timeout: float) -> Reply:
        """See `Upstream.get`."""
        return await self._ask(f"GET {self._path}{path} HTTP/1.1\r\n{self._host_line}", headers, b"", timeout, False)

    async def close(self) -> None:
        """See `Upstream.close`."""
        if self._open:
            self._emptied = asyncio.get_running_loop().create_future()
            for connection in list(self._open):
                connection.abort()
            await self._emptied

    async def _ask(self, head: str, headers: Mapping[str, str], body: bytes, timeout: float, stream: bool) -> Reply:
        message = _message(head, headers)
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout
        connection = self._kept() or await self._connect(end)
        answer = _Answer(connection, loop.create_future(), stream)
        timer = loop.call_at(end, answer.expire, timeout)
        try:
            connection.send(message, body, answer)
            await answer.ready
        except BaseException:
            await answer.close()
            raise
        finally:
            timer.cancel()
        return answer

    def _kept(self) -> _Connection | None:
        """A connection that an earlier answer left, the most recent first; those too old are closed."""
        oldest = time.monotonic() - _KEPT
        while self._idle:
            connection = self._idle.pop()
            if connection.used >= oldest and connection.usable:
                return connection
            connection.abort()
        return None

    async def _connect(self, end: float) -> _Connection:
        """A new connection. Its time counts in the request's (`end`).

        Raises:
            NotSent: it could not be made.
        """
        loop = asyncio.get_running_loop()
        while self._free <= 0:
            turn = loop.create_future()
            self._waiting.append(turn)
            try:
                async with asyncio.timeout_at(end):
                    await turn
            except BaseException as error:
                if turn.done() and not turn.cancelled():
                    self._wake()  # its turn goes to the next
                if isinstance(error, TimeoutError):
                    raise NotSent("every connection is in use") from error
                raise
            connection = self._kept()
            if connection is not None:
                return connection
        self._free -= 1
        try:
            async with asyncio.timeout_at(min(end, loop.time() + self._connect_timeout)):
                _, made = await loop.create_connection(
                    lambda: _Connection(self),
                    self._host,
                    self._port,
                    ssl=self._tls,
                    server_hostname=self._host if self._tls is not None else None,
                )
        except BaseException as error:
            self._give_back()
            if isinstance(error, TimeoutError):
                raise NotSent("no connection in time") from error
            if isinstance(error, OSError):
                raise NotSent(str(error)) from error
            raise
        if not made.usable:
            self._give_back()
            raise NotSent("the connection was closed at once")
        self._open.add(made)
        return made

    def keep(self, connection: _Connection) -> None:
        """The connection is free for the next request."""
        connection.used = time.monotonic()
        self._idle.append(connection)
        self._wake()

    def forget(self, connection: _Connection) -> None:
        """The connection is closed."""
        if connection in self._open:
            self._open.remove(connection)
            if connection in self._idle:
                self._idle.remove(connection)
            self._give_back()
            if not self._open and self._emptied is not None and not self._emptied.done():
                self._emptied.set_result(None)

    def _give_back(self) -> None:
        self._free += 1
        self._wake()

    def _wake(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return


class _Connection(asyncio.Protocol):
    """One connection. `answer` is what is being received, None while it is idle."""

    def __init__(self, pool: Http1Upstream) -> None:
        self._pool = pool
        self._parser: Any = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport
        self.answer: _Answer | None = None
        self.used = 0.0

    @property
    def usable(self) -> bool:
        """Whether it is open still."""
        return not self._transport.is_closing()

    def send(self, head: bytes, body: bytes, answer: _Answer) -> None:
        """Send a request; `answer` will be told what comes back."""
        self.answer = answer
        if len(body) <= _JOINED:
            self._transport.write(head + body)
        else:
            self._transport.write(head)
            self._transport.write(body)

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    def pause(self) -> None:
        """Read no more until `resume`: the reader of the answer lags behind."""
        if self.usable:
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self.usable:
            self._transport.resume_reading()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: the connection is there."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: the connection is closed."""
        self._pool.forget(self)
        answer, self.answer = self.answer, None
        if answer is not None:
            answer.cut(exc)

    def data_received(self, data: bytes) -> None:
        """asyncio: a part of the answer."""
        if self.answer is None:
            self.abort()  # nothing was asked
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._break(Lost(f"not HTTP: {error}"))

    def on_message_begin(self) -> None:
        """httptools: an answer begins."""
        if self.answer is None:
            self.abort()  # a second answer to one request: what follows is nobody's

    def on_header(self, name: bytes, value: bytes) -> None:
        """httptools: a header, or a trailer."""
        answer = self.answer
        if answer is not None:
            answer.headers[name.lower()] = value
            answer.head_size += len(name) + len(value)
            if answer.head_size > _HEAD_BYTES:
                self._break(Lost(f"the answer's headers are longer than {_HEAD_BYTES} bytes"))

    def on_headers_complete(self) -> None:
        """httptools: the head is there."""
        if self.answer is not None:
            self.answer.begin(self._parser.get_status_code())

    def on_body(self, data: bytes) -> None:
        """httptools: a part of the body."""
        answer = self.answer
        if answer is not None:
            answer.add(data)
            if answer.size > _BODY_BYTES:
                self._break(Lost(f"the answer is longer than {_BODY_BYTES} bytes"))

    def on_message_complete(self) -> None:
        """httptools: the answer is whole."""
        answer = self.answer
        if answer is None:
            return
        if answer.status < 200:  # an interim answer (RFC 9110, 15.2): the real one follows
            answer.headers.clear()
            answer.status = 0
            return
        self.answer = None
        answer.end()
        if self._parser.should_keep_alive() and self.usable and not self._transport.get_write_buffer_size():
            if answer.paused:
                self.resume()
            self._pool.keep(self)
        else:
            self.abort()

    def _break(self, failure: UpstreamFailure) -> None:
        answer, self.answer = self.answer, None
        if answer is not None:
            answer.fail(failure)
        self.abort()


class _Answer:
    """An answer that is arriving, and the reply that is given out for it.

    `ready` is done once the head is there (`stream`), or the whole answer; or it holds the failure.
    """

    __slots__ = (
        "_connection", "_failure", "_more", "_parts", "_stream", "_whole", "head_size", "headers", "paused", "ready",
        "size", "status",
    )  # fmt: skip

    def __init__(self, connection: _Connection, ready: asyncio.Future[None], stream: bool) -> None:
        self.ready = ready
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.head_size = 0
        self.size = 0
        self.paused = False
        self._connection = connection
        self._stream = stream
        self._parts: deque[bytes] = deque()
        self._whole = False
        self._failure: UpstreamFailure | None = None
        self._more: asyncio.Future[None] | None = None

    def header(self, name: str) -> str | None:
        """See `Reply.header`."""
        value = self.headers.get(name.encode("ascii"))
        return None if value is None else value.decode("latin-1")

    async def read(self, limit: int) -> bytes:
        """See `Reply.read`."""
        if self._whole and len(self._parts) == 1 and self.size <= limit:
            return self._parts[0]
        return await together(self.chunks(_IDLE), limit)

    async def chunks(self, idle: float) -> AsyncIterator[bytes]:
        """See `Reply.chunks`."""
        loop = asyncio.get_running_loop()
        while True:
            while self._parts:
                part = self._parts.popleft()
                self.size -= len(part)
                yield part
            if self._failure is not None:
                raise self._failure
            if self._whole:
                return
            if self.paused:
                self.paused = False
                self._connection.resume()
            self._more = loop.create_future()
            timer = loop.call_later(idle, self._stalled, idle)
            try:
                await self._more
            finally:
                timer.cancel()
                self._more = None

    async def close(self) -> None:
        """See `Reply.close`."""
        if self._connection.answer is self:
            self._connection.abort()

    def begin(self, status: int) -> None:
        """The head is there."""
        self.status = status
        if self._stream and status >= 200 and not self.ready.done():
            self.ready.set_result(None)

    def add(self, data: bytes) -> None:
        """A part of the body is there."""
        self._parts.append(data)
        self.size += len(data)
        if self._stream and self.size > _AHEAD and not self.paused:
            self.paused = True
            self._connection.pause()
        self._tell()

    def end(self) -> None:
        """The answer is whole."""
        self._whole = True
        if not self.ready.done():
            self.ready.set_result(None)
        self._tell()

    def fail(self, failure: UpstreamFailure) -> None:
        """The answer will not be whole."""
        self._failure = failure
        if not self.ready.done():
            self.ready.set_exception(failure)
        self._tell()

    def cut(self, error: Exception | None) -> None:
        """The connection is closed. That is the end of a body that names no length (RFC 9112, 6.3)."""
        if error is None and self.status >= 200 and not self.headers.keys() & _FRAMED:
            self.end()
        elif self._failure is None:
            self.fail(Lost(str(error) or type(error).__name__ if error is not None else "closed before its end"))

    def expire(self, seconds: float) -> None:
        """What was to be there in time is not."""
        if not self.ready.done():
            self.fail(Stalled(f"no answer within {seconds:g} s"))
            self._connection.abort()

    def _stalled(self, seconds: float) -> None:
        self.fail(Stalled(f"nothing arrived for {seconds:g} s"))
        self._connection.abort()

    def _tell(self) -> None:
        if self._more is not None and not self._more.done():
            self._more.set_result(None)


_FRAMED = frozenset({b"content-length", b"transfer-encoding"})


def _message(head: str, headers: Mapping[str, str]) -> bytes:
    """The head of a request.

    Raises:
        ValueError: a header would end its line early.
    """
    lines = [head]
    for name, value in headers.items():
        lines.append(f"{name}: {value}\r\n")
    lines.append("\r\n")
    text = "".join(lines)
    if text.count("\n") != text.count("\r\n") or text.count("\r") != head.count("\r\n") + len(headers) + 1:
        raise ValueError("a header holds a line break")
    return text.encode("latin-1", "replace")


def _context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context
