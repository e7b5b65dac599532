# SPDX-License-Identifier: GPL-3.0-or-later
"""All upstream clients against a raw server: what went wrong, what that says about money, and what is left open."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import pytest

from sophia.gateway.upstream import Lost, NotSent, PyreqwestUpstream, Reply, Stalled, Upstream
from sophia.gateway.upstream_aiohttp import AiohttpUpstream
from sophia.gateway.upstream_http1 import Http1Upstream
from sophia.settings import UpstreamSettings

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

SHORT = 0.3
LONG = 30.0


class Server:
    """Answers each request as `answer` says; counts connections, and the requests on them."""

    def __init__(self) -> None:
        self.answer: Answer = ok
        self.port = 0
        self.connections = 0
        self.open = 0
        self.requests: list[bytes] = []
        self.closed = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self.open += 1
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    head = await reader.readuntil(b"\r\n\r\n")
                    length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
                    body = await reader.readexactly(int(length[0].partition(b":")[2]) if length else 0)
                    self.requests.append(head + body)
                    await self.answer(reader, writer)
                    if writer.is_closing():
                        return
        finally:
            self.open -= 1
            self.closed.set()
            writer.close()
            self._tasks.discard(task)

    async def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def ok(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nX-Generation-Id: gen-1\r\nContent-Length: 5\r\n\r\nhello")
    await writer.drain()


async def streamed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await head_of_stream(writer)
    for part in (b"one", b"two"):
        await chunk(writer, part)
    writer.write(b"0\r\n\r\n")
    await writer.drain()


async def head_of_stream(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    await writer.drain()


async def chunk(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(b"%x\r\n%s\r\n" % (len(data), data))
    await writer.drain()


async def until_gone(reader: asyncio.StreamReader) -> None:
    while await reader.read(4096):
        pass


def reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST."""
    sock: socket.socket = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    writer.transport.abort()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.port = listener.sockets[0].getsockname()[1]
    yield server
    listener.close()
    await server.stop()


@pytest.fixture(params=[Http1Upstream, PyreqwestUpstream, AiohttpUpstream], ids=["http1", "pyreqwest", "aiohttp"])
def implementation(request: pytest.FixtureRequest) -> Callable[[UpstreamSettings], Upstream]:
    made: Callable[[UpstreamSettings], Upstream] = request.param
    return made


@pytest.fixture
async def client(server: Server, implementation: Callable[[UpstreamSettings], Upstream]) -> AsyncIterator[Upstream]:
    base = f"http://127.0.0.1:{server.port}/api/"
    client = implementation(UpstreamSettings(base_url=base, head_timeout=LONG, idle_timeout=LONG))
    yield client
    await client.close()


async def post(client: Upstream, *, stream: bool, head_timeout: float = LONG) -> Reply:
    return await client.post("/x", {"authorization": "Bearer k"}, b"{}", head_timeout=head_timeout, stream=stream)


async def all_of(reply: Reply, parts: list[bytes], idle: float = LONG, seen: asyncio.Event | None = None) -> bytes:
    """Collect the chunks in `parts`, saying after each that it has been `seen`; together they are returned."""
    try:
        async for part in reply.chunks(idle):
            parts.append(part)
            if seen is not None:
                seen.set()
    finally:
        await reply.close()
    return b"".join(parts)


async def read(reply: Reply, limit: int) -> bytes:
    try:
        return await reply.read(limit)
    finally:
        await reply.close()


async def eventually(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(LONG):
        while not holds():  # noqa: ASYNC110 - the server has no event for it
            await asyncio.sleep(0.005)


BOTH = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


@BOTH
async def test_ok(client: Upstream, server: Server, stream: bool) -> None:
    reply = await post(client, stream=stream)
    assert (reply.status, reply.header("x-generation-id"), reply.header("x-nothing")) == (200, "gen-1", None)
    assert await reply.read(100) == b"hello"
    await reply.close()
    (request,) = server.requests
    assert request.startswith(b"POST /api/x HTTP/1.1\r\n")
    assert request.endswith(b"\r\n\r\n{}")
    assert b"authorization: bearer k" in request.lower()


async def test_get(client: Upstream, server: Server) -> None:
    reply = await client.get("/models", {"authorization": "Bearer k"}, timeout=LONG)
    assert await reply.read(100) == b"hello"
    assert server.requests[0].startswith(b"GET /api/models HTTP/1.1\r\n")


@BOTH
async def test_errors_and_redirects_are_answers(client: Upstream, server: Server, stream: bool) -> None:
    for status in (b"302 Found", b"401 Unauthorized", b"429 Too Many", b"500 Broken"):

        async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: bytes = status) -> None:
            writer.write(b"HTTP/1.1 " + line + b"\r\nLocation: /other\r\nRetry-After: 3\r\nContent-Length: 2\r\n\r\nno")

        server.answer = refuse
        reply = await post(client, stream=stream)
        assert (reply.status, reply.header("retry-after")) == (int(status[:3]), "3")
        assert await reply.read(100) == b"no"
        await reply.close()
    assert len(server.requests) == 4


@BOTH
async def test_reset_after_the_request_may_have_been_billed(client: Upstream, server: Server, stream: bool) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reset(writer)

    server.answer = answer
    with pytest.raises(Lost) as caught:
        await post(client, stream=stream)
    assert not isinstance(caught.value, Stalled)
    assert len(server.requests) == 1


@BOTH
async def test_closed_without_an_answer(client: Upstream, server: Server, stream: bool) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server.answer = answer
    with pytest.raises(Lost):
        await post(client, stream=stream)
    assert len(server.requests) == 1


@BOTH
async def test_reset_of_a_kept_connection_is_not_tried_again(client: Upstream, server: Server, stream: bool) -> None:
    reply = await post(client, stream=stream)
    await reply.read(100)
    await reply.close()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reset(writer)

    server.answer = answer
    with pytest.raises(Lost):
        await post(client, stream=stream)
    assert len(server.requests) == 2


@BOTH
async def test_slow_head(client: Upstream, server: Server, stream: bool) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await until_gone(reader)
        writer.close()

    server.answer = answer
    with pytest.raises(Stalled):
        await post(client, stream=stream, head_timeout=SHORT)


@BOTH
async def test_a_slow_head_does_not_hold_its_connection(
    server: Server, implementation: Callable[[UpstreamSettings], Upstream], stream: bool
) -> None:
    """Nor the generation behind it: what nobody waits for is to be cancelled."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await until_gone(reader)
        writer.close()

    server.answer = answer
    base = f"http://127.0.0.1:{server.port}/api"
    client = implementation(UpstreamSettings(base_url=base, head_timeout=SHORT, idle_timeout=SHORT))
    try:
        with pytest.raises(Stalled):
            await post(client, stream=stream, head_timeout=SHORT)
        await eventually(lambda: server.open == 0)
    finally:
        await client.close()


async def test_cancelled_before_the_head_closes_once_the_head_is_there(client: Upstream, server: Server) -> None:
    go = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await go.wait()
        with contextlib.suppress(ConnectionError):
            await head_of_stream(writer)
            await chunk(writer, b"one")
            await until_gone(reader)
        writer.close()

    server.answer = answer
    asking = asyncio.create_task(post(client, stream=True))
    await eventually(lambda: len(server.requests) == 1)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    go.set()
    await eventually(lambda: server.open == 0)


async def test_a_slow_whole_answer_is_over_in_time(client: Upstream, server: Server) -> None:
    """`head_timeout` is for all of an answer that is not streamed, however it trickles."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            for _ in range(100_000):
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.01)

    server.answer = answer
    with pytest.raises(Stalled):
        await read(await post(client, stream=False, head_timeout=SHORT), 1_000_000)
    await eventually(lambda: server.open == 0)


@BOTH
async def test_cut_answer(client: Upstream, server: Server, stream: bool) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        await writer.drain()
        writer.close()

    server.answer = answer
    with pytest.raises(Lost):
        await read(await post(client, stream=stream), 1000)


@pytest.mark.parametrize("abrupt", [False, True], ids=["closed", "reset"])
async def test_cut_stream(client: Upstream, server: Server, abrupt: bool) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of_stream(writer)
        await chunk(writer, b"one")
        await seen.wait()
        reset(writer) if abrupt else writer.close()

    seen = asyncio.Event()
    server.answer = answer
    reply = await post(client, stream=True)
    parts: list[bytes] = []
    with pytest.raises(Lost) as caught:
        await all_of(reply, parts, seen=seen)
    assert parts == [b"one"]
    assert not isinstance(caught.value, Stalled)


async def test_stall_in_a_stream(client: Upstream, server: Server) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of_stream(writer)
        await chunk(writer, b"one")
        await until_gone(reader)
        writer.close()

    server.answer = answer
    reply = await post(client, stream=True)
    parts: list[bytes] = []
    with pytest.raises(Stalled):
        await all_of(reply, parts, SHORT)
    assert parts == [b"one"]
    await eventually(lambda: server.open == 0)


@BOTH
async def test_refused_connection_was_not_sent(
    implementation: Callable[[UpstreamSettings], Upstream], stream: bool
) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        client = implementation(UpstreamSettings(base_url=f"http://127.0.0.1:{nobody.getsockname()[1]}"))
        try:
            with pytest.raises(NotSent):
                await post(client, stream=stream)
        finally:
            await client.close()


async def test_chunks_come_as_they_are_sent(client: Upstream, server: Server) -> None:
    """Each is read before the next is sent, so that nothing on the way can have waited for more."""
    seen = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of_stream(writer)
        for n in range(50):
            seen.clear()
            await chunk(writer, b"data: %d\n\n" % n)
            await seen.wait()
        writer.write(b"0\r\n\r\n")

    server.answer = answer
    parts: list[bytes] = []
    await all_of(await post(client, stream=True), parts, seen=seen)
    assert parts == [b"data: %d\n\n" % n for n in range(50)]


async def test_closing_before_the_end_closes_the_connection(client: Upstream, server: Server) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of_stream(writer)
        await chunk(writer, b"one")
        await until_gone(reader)
        writer.close()

    server.answer = answer
    reply = await post(client, stream=True)
    chunks = reply.chunks(LONG)
    assert await anext(chunks) == b"one"
    await reply.close()
    await eventually(lambda: server.open == 0)
    server.answer = ok
    assert await read(await post(client, stream=False), 10) == b"hello"


@BOTH
async def test_answer_larger_than_the_limit(client: Upstream, server: Server, stream: bool) -> None:
    reply = await post(client, stream=stream)
    with pytest.raises(Lost, match="longer than 4 bytes"):
        await read(reply, 4)


@BOTH
async def test_exactly_the_limit(client: Upstream, stream: bool) -> None:
    reply = await post(client, stream=stream)
    assert await reply.read(5) == b"hello"
    await reply.close()


async def test_a_stream_read_to_its_end_leaves_its_connection_for_the_next(client: Upstream, server: Server) -> None:
    server.answer = streamed
    for _ in range(5):
        assert await all_of(await post(client, stream=True), []) == b"onetwo"
    assert (server.connections, len(server.requests)) == (1, 5)


async def test_whole_answers_share_a_connection(client: Upstream, server: Server) -> None:
    for _ in range(5):
        reply = await post(client, stream=False)
        assert await reply.read(10) == b"hello"
        await reply.close()
    assert (server.connections, len(server.requests)) == (1, 5)


async def test_many_at_once(client: Upstream, server: Server) -> None:
    server.answer = streamed

    async def one() -> bytes:
        return await all_of(await post(client, stream=True), [])

    assert await asyncio.gather(*(one() for _ in range(50))) == [b"onetwo"] * 50


def test_the_setting_names_the_client() -> None:
    from sophia.gateway.service import open_client

    settings = UpstreamSettings(base_url="http://127.0.0.1:9")
    assert isinstance(open_client(settings), Http1Upstream)
    assert isinstance(open_client(msgspec.structs.replace(settings, client="pyreqwest")), PyreqwestUpstream)
    assert isinstance(open_client(msgspec.structs.replace(settings, client="aiohttp")), AiohttpUpstream)
