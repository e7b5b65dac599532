# SPDX-License-Identifier: GPL-3.0-or-later
"""The few things of ASGI 3 that the hot routes need, without a framework."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from sophia.errors import BadRequest, PayloadTooLarge

__all__ = [
    "App",
    "Headers",
    "Message",
    "Receive",
    "Scope",
    "Send",
    "deadline_of",
    "disconnected",
    "header",
    "is_batch",
    "is_final",
    "read_body",
    "respond",
    "start",
]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

_BODY_SECONDS = 60.0
_INDEX = "sophia.headers"
_TIMEOUT = b"x-request-timeout"
_SDK_TIMEOUTS = (b"x-stainless-timeout", b"x-stainless-read-timeout")


def header(scope: Scope, name: bytes) -> str | None:
    """A header's value, by its lower-case name; the last where it is repeated."""
    value: bytes | None = _index(scope).get(name)
    return None if value is None else value.decode("latin-1")


def _index(scope: Scope) -> dict[bytes, bytes]:
    """The headers by name, made once per request."""
    index: dict[bytes, bytes] | None = scope.get(_INDEX)
    if index is None:
        index = scope[_INDEX] = dict(scope["headers"])
    return index


async def read_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """The request's body.

    Raises:
        PayloadTooLarge: it has more than `limit` bytes.
        BadRequest: the client went away, or took longer than a minute.
    """
    declared = header(scope, b"content-length")
    if declared is not None and declared.isdigit() and int(declared) > limit:
        raise _too_large(limit)
    message = await receive()
    if not message.get("more_body") and message["type"] == "http.request":
        body: bytes = message.get("body", b"")
        if len(body) > limit:
            raise _too_large(limit)
        return body
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            while True:
                if message["type"] == "http.disconnect":
                    raise BadRequest("client_disconnected", "The client went away while sending its request.")
                part = message.get("body", b"")
                size += len(part)
                if size > limit:
                    raise _too_large(limit)
                parts.append(part)
                if not message.get("more_body"):
                    return b"".join(parts)
                message = await receive()
    except TimeoutError as error:
        raise BadRequest("body_timeout", "The request's body did not arrive in time.", status=408) from error


def _too_large(limit: int) -> PayloadTooLarge:
    return PayloadTooLarge("payload_too_large", f"The body is larger than {limit} bytes; send less.")


async def start(send: Send, status: int, headers: Headers) -> None:
    """Send the head of an answer."""
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def respond(send: Send, status: int, headers: Headers, body: bytes) -> None:
    """Send a whole answer."""
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [*headers, (b"content-length", b"%d" % len(body))],
        }
    )
    await send({"type": "http.response.body", "body": body})


async def disconnected(receive: Receive) -> None:
    """Return when the client is gone. To be called once the body has been read."""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return


def deadline_of(scope: Scope) -> float | None:
    """The client's own deadline in seconds: `x-request-timeout`, or what SDKs tell of themselves
    (`x-stainless-timeout`, `x-stainless-read-timeout`), which may hold anything (Anthropic's writes NOT_GIVEN where it
    has none). A number that is no time that could pass is none.

    Raises:
        BadRequest: `x-request-timeout` is no number.
    """
    asked = header(scope, _TIMEOUT)
    if asked is None:
        return min(filter(None, [_seconds(header(scope, name)) for name in _SDK_TIMEOUTS]), default=None)
    seconds = _seconds(asked)
    if seconds is None:
        raise BadRequest("invalid_value", "x-request-timeout: must be a number of seconds", param="x-request-timeout")
    return seconds or None


def is_final(scope: Scope) -> bool:
    """Whether the client's deadline is one for the whole answer, not only for its beginning, as the SDKs' is."""
    return header(scope, _TIMEOUT) is not None


def is_batch(scope: Scope) -> bool:
    """Whether the client can wait: `x-sophia-priority: batch`.

    Raises:
        BadRequest: a priority that is none.
    """
    priority = header(scope, b"x-sophia-priority")
    if priority not in (None, "interactive", "batch"):
        raise BadRequest("invalid_priority", "x-sophia-priority is interactive or batch", param="x-sophia-priority")
    return priority == "batch"


def _seconds(value: str | None) -> float | None:
    """The number; 0 where that much time cannot pass, None where it is no number."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        return None
    return seconds if 0 < seconds < math.inf else 0.0
