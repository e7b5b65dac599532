# SPDX-License-Identifier: GPL-3.0-or-later
"""Heads that no client library would send, written to the socket as they are."""

from __future__ import annotations

import json
import re
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from .conftest import Target

BODY = json.dumps(
    {"model": "openai/gpt-4o-mini", "max_tokens": 4, "messages": [{"role": "user", "content": "hi"}]}
).encode()
# What a header's value may hold at all (RFC 9110, 5.5): no CR, LF or NUL.
FIELD_VALUES = st.binary(max_size=200).map(lambda data: re.sub(rb"[\x00\r\n]", b"", data))
OURS = [
    b"x-request-id",
    b"traceparent",
    b"tracestate",
    b"x-request-timeout",
    b"x-stainless-timeout",
    b"x-stainless-read-timeout",
    b"idempotency-key",
    b"x-sophia-cache",
    b"x-sophia-cache-ttl",
    b"x-sophia-cache-tags",
    b"x-sophia-cache-scope",
    b"cache-control",
    b"user-agent",
    b"content-type",
    b"content-encoding",
    b"accept",
    b"cookie",
    b"host",
    b"expect",
    b"x-forwarded-for",
]


def exchange(target: Target, data: bytes, *, end: bool = False) -> bytes:
    """Everything that comes back until the gateway closes; `end` closes our side first."""
    received = b""
    with socket.create_connection(("127.0.0.1", target.bed.port), timeout=30) as connection, suppress(ConnectionError):
        connection.sendall(data)
        if end:
            connection.shutdown(socket.SHUT_WR)
        while part := connection.recv(65536):
            received += part
    for status in re.findall(rb"HTTP/1\.1 (\d+)", received):
        target.statuses[int(status)] += 1
    return received


def request(
    target: Target, *headers: bytes, body: bytes = BODY, line: bytes = b"POST /v1/chat/completions HTTP/1.1"
) -> bytes:
    """A request with these headers (and, unless one of them says otherwise, a key and the body's length)."""
    lines = [line, *headers, b"connection: close"]
    names = {header.partition(b":")[0].lower() for header in headers}
    if b"host" not in names:
        lines.append(b"host: x")
    if b"authorization" not in names:
        lines.append(b"authorization: Bearer " + target.key.encode())
    if b"content-length" not in names and b"transfer-encoding" not in names:
        lines.append(b"content-length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def status_of(answer: bytes) -> int:
    found = re.match(rb"HTTP/1\.1 (\d+)", answer)
    assert found is not None, answer[:300]
    return int(found[1])


def alive(target: Target) -> None:
    assert target.client.get("/health/live").status_code == 200


@settings(max_examples=250)
@given(name=st.sampled_from(OURS), value=FIELD_VALUES)
def test_any_value_of_any_header(target: Target, name: bytes, value: bytes) -> None:
    answer = exchange(target, request(target, name + b": " + value))
    assert status_of(answer) in (200, 400, 504), answer[:300]  # 504: a deadline too short to keep


@settings(max_examples=100)
@given(value=FIELD_VALUES)
def test_any_authorization(target: Target, value: bytes) -> None:
    assert status_of(exchange(target, request(target, b"authorization: " + value))) in (400, 401)


@settings(max_examples=50)
@given(value=FIELD_VALUES)
def test_any_api_key(target: Target, value: bytes) -> None:
    headers = (b"authorization: Basic x", b"x-api-key: " + value)
    assert status_of(exchange(target, request(target, *headers))) in (400, 401)


@pytest.mark.parametrize(
    "value",
    [
        b"a\r\nx-injected: 1",
        b"a\nx-injected: 1",
        b"a\rx-injected: 1",
        b"a\r\n x-injected: 1",
        b"a%0d%0ax-injected: 1",
        b"\x00",
        b"a" * 10_000,
        b"\xff\xfe",
        b"",
        b"<script>",
    ],
)
def test_a_request_id_is_repeated_only_if_it_is_harmless(target: Target, value: bytes) -> None:
    answer = exchange(target, request(target, b"x-request-id: " + value))
    head = answer.partition(b"\r\n\r\n")[0].lower()
    assert status_of(answer) in (200, 400)
    assert b"\nx-injected" not in head
    assert len(head) < 3_000


TRACE, SPAN = b"1" * 32, b"1" * 16


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"x",
        b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-01",
        b"00-" + b"G" * 32 + b"-" + SPAN + b"-01",
        b"ff-" + TRACE + b"-" + SPAN + b"-01",
        b"00-" + TRACE + b"-" + SPAN + b"-01" + b"-x" * 4000,
    ],
)
def test_garbage_for_a_trace(target: Target, value: bytes) -> None:
    state = b"tracestate: " + b"a=b," * 2000
    assert status_of(exchange(target, request(target, b"traceparent: " + value, state))) == 200


@pytest.mark.parametrize(
    ("value", "statuses"),
    [
        (b"soon", {400}),
        (b"nan", {200}),
        (b"inf", {200}),
        (b"-1", {200}),
        (b"0", {200}),
        (b"1e999", {200}),
        (b"1e-9", {200, 504}),
        (b"1,2", {400}),
        (b"0x10", {400}),
        (b"9" * 5_000, {200}),
    ],
)
def test_odd_deadlines(target: Target, value: bytes, statuses: set[int]) -> None:
    assert status_of(exchange(target, request(target, b"x-request-timeout: " + value))) in statuses


@pytest.mark.parametrize(
    "headers",
    [
        (b"content-length: -1",),
        (b"content-length: x",),
        (b"content-length: 99999999999999999999999",),
        (b"content-length: 5", b"content-length: 6"),
        (b"content-length: 5", b"transfer-encoding: chunked"),
        (b"transfer-encoding: x",),
        (b"transfer-encoding: chunked",),
    ],
    ids=lambda headers: b" ".join(headers).decode(),
)
def test_odd_lengths(target: Target, headers: tuple[bytes, ...]) -> None:
    answer = exchange(target, request(target, *headers), end=True)
    assert not answer or status_of(answer) in (400, 408, 413)
    alive(target)


def test_less_body_than_announced(target: Target) -> None:
    answer = exchange(target, request(target, b"content-length: %d" % (len(BODY) + 10)), end=True)
    assert not answer or status_of(answer) == 400
    alive(target)


def test_more_body_than_announced(target: Target) -> None:
    answer = exchange(target, request(target, b"content-length: %d" % (len(BODY) - 1)), end=True)
    assert status_of(answer) == 400
    alive(target)


def test_announced_beyond_the_limit_is_refused_before_it_is_sent(target: Target) -> None:
    assert status_of(exchange(target, request(target, b"content-length: 1000000000", body=b""))) == 413


def test_gone_in_the_middle_of_everything(target: Target) -> None:
    """Connections that end after any number of bytes, before, in and behind the request."""
    data = request(target)
    for length in range(0, len(data), 23):
        with socket.create_connection(("127.0.0.1", target.bed.port), timeout=30) as connection:
            connection.sendall(data[:length])
    target.statuses[200] += 1  # the last but one may have been whole
    alive(target)


@pytest.mark.parametrize(
    "line",
    [
        b"POST /v1/chat/completions HTTP/1.0",
        b"POST http://other.example/v1/chat/completions HTTP/1.1",
        b"POST //v1/chat/completions HTTP/1.1",
        b"POST /v1/chat%00 HTTP/1.1",
        b"POST /v1/%0d%0ax HTTP/1.1",
        b"POST /v1/\xff HTTP/1.1",
        b"GET /v1/models/%ff%fe HTTP/1.1",
        b"GET /v1/models/../../health HTTP/1.1",
        b"GET /v1/models/" + b"a" * 20_000 + b" HTTP/1.1",
        b"OPTIONS * HTTP/1.1",
        b"HEAD /v1/models HTTP/1.1",
        b"BREW /v1/chat HTTP/1.1",
        b"POST /v1/chat/completions HTTP/9.9",
        b"nonsense",
    ],
    ids=lambda line: ascii(line[:40]),
)
def test_odd_request_lines(target: Target, line: bytes) -> None:
    answer = exchange(target, request(target, line=line))
    assert not answer or status_of(answer) < 500
    alive(target)


def test_pipelined_requests_are_answered_in_order(target: Target) -> None:
    first = request(target, b"x-request-id: first").replace(b"connection: close\r\n", b"")
    answer = exchange(target, first + request(target, b"x-request-id: second"))
    assert re.findall(rb"x-request-id: (\w+)", answer) == [b"first", b"second"]
