# SPDX-License-Identifier: GPL-3.0-or-later
"""`POST /v1/chat` as a client sees it.

::

    ClientError        the gateway refused, or is not there; the message says what to do
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
from pyreqwest.client import ClientBuilder
from pyreqwest.exceptions import PyreqwestError

from sophia.gateway.sse import Parser

__all__ = ["Answer", "ChatClient", "ClientError", "Delta", "read_key"]


class ClientError(Exception):
    """The gateway refused a message, or cannot be reached.

    `code` is the stable one, `status` 0 without an answer, `retry_after` what the gateway asks to wait (seconds).
    """

    def __init__(
        self, message: str, code: str = "unreachable", status: int = 0, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
        self.retry_after = retry_after


class Delta(msgspec.Struct, frozen=True):
    """A piece of the answer's text."""

    text: str


class Answer(msgspec.Struct, kw_only=True):
    """A whole answer. Times in seconds; `cost` and `budget_left` in USD."""

    id: str
    model: str
    reason: str
    preference: str | None = None
    text: str = ""
    prompt: int = 0
    completion: int = 0
    cost: Decimal | None = None
    cache: str = "off"
    budget_left: Decimal | None = None
    conversation: str | None = None
    finish: str | None = None
    first_token: float = 0.0
    total: float = 0.0


class _Event(msgspec.Struct):
    delta: str | None = None
    done: bool = False
    error: dict[str, Any] | None = None
    id: str = ""
    model: str = ""
    reason: str = ""
    preference: str | None = None
    tokens: dict[str, int] = {}
    cost: Decimal | None = None
    cache: str = "off"
    budget_left: Decimal | None = None
    conversation: str | None = None
    finish: str | None = None


_EVENT = msgspec.json.Decoder(_Event)


def read_key(path: Path) -> str:
    """A key from its file.

    Raises:
        ClientError: there is none.
    """
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ClientError(f"{path}: {error.strerror}: name the file that holds your key with --key-file") from error


class ChatClient:
    """Talks to one gateway with one key. Use as an asynchronous context manager."""

    def __init__(self, url: str, key: str) -> None:
        self._url = url.rstrip("/")
        self._headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        self._client = (
            ClientBuilder().connect_timeout(timedelta(seconds=5)).read_timeout(timedelta(seconds=120)).build()
        )

    async def __aenter__(self) -> ChatClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def ask(self, message: dict[str, Any], headers: dict[str, str] | None = None) -> Answer:
        """Send a message; its whole answer.

        Raises:
            ClientError: it was refused, or did not come whole.
        """
        parts: list[str] = []
        async for piece in self.stream(message, headers):
            if isinstance(piece, Answer):
                piece.text = "".join(parts)
                return piece
            parts.append(piece.text)
        raise ClientError("the answer ended early", "stream_cut")

    async def stream(
        self, message: dict[str, Any], headers: dict[str, str] | None = None
    ) -> AsyncIterator[Delta | Answer]:
        """Send a message; the pieces of its answer as they come, the whole answer's account last.

        Raises:
            ClientError: it was refused, or did not come whole.
        """
        body = msgspec.json.encode(message | {"stream": True})
        request = self._client.post(f"{self._url}/v1/chat").headers(self._headers | (headers or {})).body_bytes(body)
        started = time.perf_counter()
        first: float | None = None
        try:
            async with request.streamed_read_buffer_limit(0).build_streamed() as response:
                if response.status != 200:
                    wait = response.headers.get("retry-after", "")
                    raise _refusal(response.status, bytes(await response.bytes()), wait)
                parser = Parser()
                while (chunk := await response.body_reader.read_chunk()) is not None:
                    for event in parser.feed(bytes(chunk)):
                        if event.data is None:
                            continue
                        value = _EVENT.decode(event.data)
                        if value.error is not None:
                            raise ClientError(value.error["message"], value.error["code"], 200)
                        if value.delta is not None:
                            first = first or time.perf_counter() - started
                            yield Delta(value.delta)
                        if value.done:
                            total = time.perf_counter() - started
                            yield _answer(value, first or total, total)
        except PyreqwestError as error:
            raise ClientError(f"{self._url} does not answer: is the gateway running? ({error.args[0]})") from error


def _answer(value: _Event, first: float, total: float) -> Answer:
    return Answer(
        id=value.id,
        model=value.model,
        reason=value.reason,
        preference=value.preference,
        prompt=value.tokens.get("prompt", 0),
        completion=value.tokens.get("completion", 0),
        cost=value.cost,
        cache=value.cache,
        budget_left=value.budget_left,
        conversation=value.conversation,
        finish=value.finish,
        first_token=first,
        total=total,
    )


def _refusal(status: int, body: bytes, wait: str) -> ClientError:
    try:
        error = msgspec.json.decode(body)["error"]
        return ClientError(error["message"], error["code"], status, float(wait) if wait.isdigit() else None)
    except (msgspec.MsgspecError, KeyError, TypeError):
        return ClientError(f"the gateway answered with status {status}", "unknown", status)
