# SPDX-License-Identifier: GPL-3.0-or-later
"""What only the client on the event loop has to see to itself: its pool, its parser, TLS."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from sophia.gateway.service import open_client
from sophia.gateway.upstream import Lost, NotSent, PyreqwestUpstream, Reply, Stalled
from sophia.gateway.upstream_http1 import Http1Upstream
from sophia.settings import UpstreamSettings

LONG = 30.0
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Server:
    """Writes `answers`, one a request, on each connection in turn; `gate` holds every answer back while it is clear."""

    def __init__(self) -> None:
        self.port = 0
        self.answers: list[bytes] = []
        self.connections = 0
        self.requests: list[bytes] = []
        self.closing = False
        self.gate = asyncio.Event()
        self.gate.set()
        self.ended = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    self.requests.append(await reader.readuntil(b"{}"))
                    await self.gate.wait()
                    writer.write(self.answers.pop(0) if self.answers else OK)
                    await writer.drain()
                    if self.closing:
                        return
        finally:
            self.ended.set()
            self._tasks.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.port = listener.sockets[0].getsockname()[1]
    yield server
    listener.close()
    await server.stop()


@pytest.fixture
async def client(server: Server) -> AsyncIterator[Http1Upstream]:
    client = Http1Upstream(UpstreamSettings(base_url=f"http://127.0.0.1:{server.port}/api", connections=1))
    yield client
    await client.close()


async def post(client: Http1Upstream, *, stream: bool = False, timeout: float = LONG) -> Reply:
    return await client.post("/x", {"authorization": "Bearer k"}, b"{}", head_timeout=timeout, stream=stream)


async def body_of(client: Http1Upstream, *, stream: bool = False) -> bytes:
    reply = await post(client, stream=stream)
    try:
        return await reply.read(10_000_000)
    finally:
        await reply.close()


BOTH = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


@BOTH
async def test_interim_answers_are_passed_over(client: Http1Upstream, server: Server, stream: bool) -> None:
    server.answers = [b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK]
    reply = await post(client, stream=stream)
    assert (reply.status, reply.header("link"), await reply.read(10)) == (200, None, b"ok")


@BOTH
async def test_a_body_without_a_length_ends_with_its_connection(
    client: Http1Upstream, server: Server, stream: bool
) -> None:
    server.answers = [b"HTTP/1.1 200 OK\r\n\r\nall of it"]
    server.closing = True
    assert await body_of(client, stream=stream) == b"all of it"


async def test_a_second_answer_is_nobodys(client: Http1Upstream, server: Server) -> None:
    server.answers = [OK + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"]
    assert await body_of(client) == b"ok"
    assert await body_of(client) == b"ok"
    assert server.connections == 2


async def test_what_comes_unasked_closes_the_connection(client: Http1Upstream, server: Server) -> None:
    server.answers = [OK + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n"]
    assert await body_of(client) == b"ok"
    await server.ended.wait()
    assert await body_of(client) == b"ok"


@pytest.mark.parametrize(
    "answer",
    [
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
async def test_what_is_not_http_is_lost(client: Http1Upstream, server: Server, answer: bytes) -> None:
    server.answers = [answer]
    with pytest.raises(Lost):
        await body_of(client)
    assert await body_of(client) == b"ok"


@pytest.mark.parametrize("value", ["a\r\nx: y", "a\ny", "a\ry"])
async def test_a_header_cannot_end_its_line(client: Http1Upstream, server: Server, value: str) -> None:
    with pytest.raises(ValueError, match="line break"):
        await client.post("/x", {"tracestate": value}, b"{}", head_timeout=LONG, stream=False)
    assert not server.requests


async def test_no_more_connections_than_allowed(client: Http1Upstream, server: Server) -> None:
    assert await asyncio.gather(*(body_of(client) for _ in range(20))) == [b"ok"] * 20
    assert server.connections == 1


async def test_who_gives_up_waiting_passes_the_turn_on(client: Http1Upstream, server: Server) -> None:
    server.gate.clear()
    first, second, third = (asyncio.create_task(body_of(client)) for _ in range(3))
    await asyncio.sleep(0)
    while not server.requests:  # noqa: ASYNC110 - the server has no event for it
        await asyncio.sleep(0.001)
    server.gate.set()
    assert await first == b"ok"
    second.cancel()  # woken, but not run yet
    assert await third == b"ok"
    with contextlib.suppress(asyncio.CancelledError):
        await second


async def test_waiting_for_a_connection_has_an_end(client: Http1Upstream, server: Server) -> None:
    server.gate.clear()
    first = asyncio.create_task(body_of(client))
    await asyncio.sleep(0.01)
    with pytest.raises(NotSent, match="every connection is in use"):
        await post(client, timeout=0.05)
    server.gate.set()
    assert await first == b"ok"


async def test_a_request_cancelled_as_its_answer_comes_leaves_others_alone(
    client: Http1Upstream, server: Server
) -> None:
    """Its connection may carry the next request by then."""
    for _ in range(20):
        asking = asyncio.create_task(body_of(client))
        following = asyncio.create_task(body_of(client))
        served = len(server.requests)
        while len(server.requests) == served:  # noqa: ASYNC110 - the server has no event for it
            await asyncio.sleep(0)
        for _ in range(5):
            await asyncio.sleep(0)
        asking.cancel()
        assert await following == b"ok"
        with contextlib.suppress(asyncio.CancelledError):
            await asking


async def test_a_slow_reader_holds_the_upstream_back(client: Http1Upstream, server: Server) -> None:
    size = 64 * 1024 * 1024
    server.answers = [b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size]
    reply = await post(client, stream=True)
    await asyncio.sleep(0.2)
    assert not server.ended.is_set()
    read = 0
    async for part in reply.chunks(LONG):
        assert len(part) <= 1024 * 1024
        read += len(part)
    await reply.close()
    assert read == size
    assert await body_of(client) == b"ok"
    assert server.connections == 1


async def test_silence_after_pieces_is_a_stall(client: Http1Upstream, server: Server) -> None:
    server.answers = [b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhe"]
    reply = await post(client, stream=True)
    with pytest.raises(Stalled):
        async for _ in reply.chunks(0.05):
            pass
    await reply.close()


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=6), st.lists(st.integers(1, 9), max_size=40))
@settings(max_examples=60, deadline=None)
def test_pieces_arrive_however_the_network_cuts_them(pieces: list[bytes], cuts: list[int]) -> None:
    async def run() -> None:
        wire = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        wire += b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"{}")
            rest = wire
            for cut in cuts:
                writer.write(rest[:cut])
                rest = rest[cut:]
                await asyncio.sleep(0)
            writer.write(rest)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
            over.set()

        over = asyncio.Event()
        listener = await asyncio.start_server(answer, "127.0.0.1", 0)
        client = Http1Upstream(UpstreamSettings(base_url=f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"))
        try:
            assert await body_of(client, stream=True) == b"".join(pieces)
        finally:
            await client.close()
            await over.wait()
            listener.close()
            await listener.wait_closed()

    asyncio.run(run())


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A self-signed certificate for 127.0.0.1, and its key beside it (`.key`)."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "upstream")])
    now = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "upstream.pem"
    path.write_bytes(built.public_bytes(serialization.Encoding.PEM))
    path.with_suffix(".key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return path


@pytest.mark.parametrize("trusted", [True, False])
async def test_tls(certificate: Path, monkeypatch: pytest.MonkeyPatch, trusted: bool) -> None:
    server = Server()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_suffix(".key"))
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=context)
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    port = listener.sockets[0].getsockname()[1]
    client = Http1Upstream(UpstreamSettings(base_url=f"https://127.0.0.1:{port}"))
    try:
        if trusted:
            assert [await body_of(client) for _ in range(3)] == [b"ok"] * 3
            assert server.connections == 1
        else:
            with pytest.raises(NotSent, match="certificate"):
                await body_of(client)
            assert not server.requests
    finally:
        await client.close()
        listener.close()
        await server.stop()


def test_a_proxy_of_the_environment_needs_the_client_that_knows_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("https_proxy", "http_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    upstream = UpstreamSettings(base_url="https://openrouter.ai/api/v1")
    assert isinstance(open_client(upstream), Http1Upstream)
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    assert isinstance(open_client(upstream), PyreqwestUpstream)
    local = msgspec.structs.replace(upstream, base_url="http://127.0.0.1:8787/api/v1")
    assert isinstance(open_client(local), Http1Upstream)
    monkeypatch.setenv("NO_PROXY", "openrouter.ai")
    assert isinstance(open_client(upstream), Http1Upstream)
