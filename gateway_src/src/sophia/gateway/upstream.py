# SPDX-License-Identifier: GPL-3.0-or-later
"""The only HTTP client of the gateway: requests to OpenRouter, whole or streamed.

Two implementations under the same tests: `pyreqwest` (Rust, the fast default) and `aiohttp`. What a failure says
about money is the point of the error tree::

    UpstreamFailure
    ├── NotSent        no connection was made: nothing can have been billed
    ├── Lost           the request went out and the answer did not (all) come: it may have been billed
    └── Stalled        as Lost, because nothing came for too long

The clients do not follow redirects and do not retry: that is decided in `dispatch`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Protocol

import pyreqwest.exceptions
from pyreqwest.client import Client, ClientBuilder
from pyreqwest.response import Response

from sophia.settings import UpstreamSettings

__all__ = ["Lost", "NotSent", "PyreqwestUpstream", "Reply", "Stalled", "Upstream", "UpstreamFailure", "together"]

_CONNECT_STEP = "client error (Connect)"
_GRACE = 1.0


class UpstreamFailure(Exception):
    """The upstream did not give a whole answer."""


class NotSent(UpstreamFailure):
    """No connection was made, so nothing can have been billed."""


class Lost(UpstreamFailure):
    """The request was sent, and the answer did not (all) arrive."""


class Stalled(Lost):
    """Nothing arrived for longer than allowed."""


class Reply(Protocol):
    """An answer whose head has arrived. `close` is to be called in any case; before the end it cancels upstream."""

    status: int

    def header(self, name: str) -> str | None:
        """A header's value by its lower-case name."""

    async def read(self, limit: int) -> bytes:
        """The rest of the body. Raises `Lost` where it is cut short or longer than `limit` bytes."""

    def chunks(self, idle: float) -> AsyncIterator[bytes]:
        """The body as it arrives. Raises `Stalled` after `idle` seconds of silence, `Lost` where it is cut."""

    async def close(self) -> None:
        """Give the connection back, or close it where the body has not been read to its end."""


async def together(chunks: AsyncIterator[bytes], limit: int) -> bytes:
    """A body in one. Raises `Lost` where it is longer than `limit` bytes."""
    parts: list[bytes] = []
    size = 0
    async for part in chunks:
        size += len(part)
        if size > limit:
            raise Lost(f"the answer is longer than {limit} bytes")
        parts.append(part)
    return b"".join(parts)


class Upstream(Protocol):
    """A pool of connections to one base URL."""

    async def post(
        self, path: str, headers: Mapping[str, str], body: bytes, *, head_timeout: float, stream: bool
    ) -> Reply:
        """Send a request; return once the answer's head (whole answer unless `stream`) is there."""

    async def get(self, path: str, headers: Mapping[str, str], *, timeout: float) -> Reply:
        """Fetch a resource."""

    async def close(self) -> None:
        """Close all connections."""


class PyreqwestUpstream:
    """`Upstream` over reqwest.

    A request whose coroutine is cancelled before its head has come goes on inside the client (pyreqwest 0.15.1) and
    would hold its connection for ever. So whole requests have the client's own time-out, and every read of a stream
    one that is a little longer than those kept here.
    """

    def __init__(self, settings: UpstreamSettings) -> None:
        self._base = settings.base_url.rstrip("/")
        self._client: Client = (
            ClientBuilder()
            .connect_timeout(timedelta(seconds=settings.connect_timeout))
            .read_timeout(timedelta(seconds=max(settings.head_timeout, settings.idle_timeout) + _GRACE))
            .max_connections(settings.connections)
            .pool_idle_timeout(timedelta(seconds=50))
            .tcp_nodelay(True)
            .follow_redirects(False)
            .http1_only()
            .build()
        )

    async def post(
        self, path: str, headers: Mapping[str, str], body: bytes, *, head_timeout: float, stream: bool
    ) -> Reply:
        builder = self._client.post(self._base + path).headers(headers).body_bytes(body)
        if not stream:
            try:
                return _Whole(await builder.timeout(timedelta(seconds=head_timeout)).build().send())
            except pyreqwest.exceptions.PyreqwestError as error:
                raise _failure(error) from error
        stack = AsyncExitStack()
        try:
            async with asyncio.timeout(head_timeout):
                request = builder.streamed_read_buffer_limit(0).build_streamed()
                return _Streamed(await stack.enter_async_context(request), stack)
        except TimeoutError as error:
            raise Stalled(f"no answer within {head_timeout:g} s") from error
        except pyreqwest.exceptions.PyreqwestError as error:
            raise _failure(error) from error

    async def get(self, path: str, headers: Mapping[str, str], *, timeout: float) -> Reply:
        try:
            builder = self._client.get(self._base + path).headers(headers)
            return _Whole(await builder.timeout(timedelta(seconds=timeout)).build().send())
        except pyreqwest.exceptions.PyreqwestError as error:
            raise _failure(error) from error

    async def close(self) -> None:
        await self._client.close()


class _Whole:
    """A reply whose body has been read by the client already."""

    def __init__(self, response: Response) -> None:
        self._response = response
        self.status: int = response.status

    def header(self, name: str) -> str | None:
        return self._response.get_header(name)

    async def read(self, limit: int) -> bytes:
        try:
            body = bytes(await self._response.bytes())
        except pyreqwest.exceptions.PyreqwestError as error:
            raise _failure(error) from error
        if len(body) > limit:
            raise Lost(f"the answer is longer than {limit} bytes")
        return body

    async def chunks(self, idle: float) -> AsyncIterator[bytes]:
        yield await self.read(2**63)

    async def close(self) -> None:
        return None


class _Streamed:
    """A reply whose body is read as it arrives."""

    def __init__(self, response: Response, stack: AsyncExitStack) -> None:
        self._response = response
        self._stack = stack
        self.status: int = response.status

    def header(self, name: str) -> str | None:
        return self._response.get_header(name)

    async def read(self, limit: int) -> bytes:
        return await together(self.chunks(30.0), limit)

    async def chunks(self, idle: float) -> AsyncIterator[bytes]:
        reader = self._response.body_reader
        try:
            while True:
                async with asyncio.timeout(idle):
                    chunk = await reader.read_chunk()
                if chunk is None:
                    return
                yield bytes(chunk)
        except TimeoutError as error:
            raise Stalled(f"nothing arrived for {idle:g} s") from error
        except pyreqwest.exceptions.PyreqwestError as error:
            raise _failure(error) from error

    async def close(self) -> None:
        await self._stack.aclose()


def _failure(error: pyreqwest.exceptions.PyreqwestError) -> UpstreamFailure:
    """Only a failure of the connect step is known to have sent nothing. The client raises `ConnectError` for a
    connection that was reset after the request too, and `ConnectTimeoutError` for a missing head (pyreqwest
    0.15.1), so the class does not tell: hyper's own cause does."""
    details = getattr(error, "details", None) or {}
    causes = details.get("causes") or []
    if any(cause["message"] == _CONNECT_STEP for cause in causes):
        return NotSent(causes[-1]["message"])
    if isinstance(error, pyreqwest.exceptions.RequestTimeoutError):
        return Stalled("no answer in time")
    return Lost(causes[-1]["message"] if causes else str(error))
