# SPDX-License-Identifier: GPL-3.0-or-later
"""`Upstream` over aiohttp: the second implementation, for where `pyreqwest` has no wheel or shows a fault."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping

import aiohttp

from sophia.gateway.upstream import Lost, NotSent, Reply, Stalled, UpstreamFailure, together
from sophia.settings import UpstreamSettings

__all__ = ["AiohttpUpstream"]


class AiohttpUpstream:
    """A pool of connections to one base URL."""

    def __init__(self, settings: UpstreamSettings) -> None:
        self._base = settings.base_url.rstrip("/")
        self._settings = settings
        self._session: aiohttp.ClientSession | None = None

    async def post(
        self, path: str, headers: Mapping[str, str], body: bytes, *, head_timeout: float, stream: bool
    ) -> Reply:
        """See `Upstream.post`."""
        return await self._send("POST", path, headers, body, head_timeout, whole=not stream)

    async def get(self, path: str, headers: Mapping[str, str], *, timeout: float) -> Reply:
        """See `Upstream.get`."""
        return await self._send("GET", path, headers, None, timeout, whole=True)

    async def close(self) -> None:
        """See `Upstream.close`."""
        if self._session is not None:
            await self._session.close()

    async def _send(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None, timeout: float, *, whole: bool
    ) -> Reply:
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=self._settings.connections, keepalive_timeout=50)
            limits = aiohttp.ClientTimeout(total=None, sock_connect=self._settings.connect_timeout)
            self._session = aiohttp.ClientSession(
                connector=connector, timeout=limits, auto_decompress=True, skip_auto_headers=("User-Agent",)
            )
        try:
            async with asyncio.timeout(timeout):
                response = await self._session.request(
                    method, self._base + path, headers=headers, data=body, allow_redirects=False
                )
                return _AiohttpReply(response, await _all_of(response) if whole else None)
        except aiohttp.ClientError as error:  # first: aiohttp's own time-out of connecting is a TimeoutError too
            raise _failure(error) from error
        except TimeoutError as error:
            raise Stalled(f"no answer within {timeout:g} s") from error


async def _all_of(response: aiohttp.ClientResponse) -> bytes:
    """The whole body; the connection is closed where it does not come."""
    try:
        return await response.read()
    except BaseException:
        response.close()
        raise


class _AiohttpReply:
    """A reply; `body` is there where it has been read already."""

    def __init__(self, response: aiohttp.ClientResponse, body: bytes | None) -> None:
        self._response = response
        self._body = body
        self.status = response.status

    def header(self, name: str) -> str | None:
        return self._response.headers.get(name)

    async def read(self, limit: int) -> bytes:
        return await together(self.chunks(60.0), limit)

    async def chunks(self, idle: float) -> AsyncIterator[bytes]:
        if self._body is not None:
            yield self._body
            return
        try:
            while True:
                async with asyncio.timeout(idle):
                    chunk = await self._response.content.readany()
                if not chunk:
                    return
                yield chunk
        except TimeoutError as error:
            raise Stalled(f"nothing arrived for {idle:g} s") from error
        except aiohttp.ClientError as error:
            raise _failure(error) from error

    async def close(self) -> None:
        if self._response.content.at_eof():
            self._response.release()
        else:
            self._response.close()


def _failure(error: aiohttp.ClientError) -> UpstreamFailure:
    """Only a failure to connect is known to have sent nothing."""
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
        return NotSent(str(error))
    return Lost(str(error) or type(error).__name__)
