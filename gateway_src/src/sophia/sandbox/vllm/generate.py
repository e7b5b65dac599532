# SPDX-License-Identifier: GPL-3.0-or-later
"""Chat and text completions: from a request to sequences, and from their pieces to the answer on the wire."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from .answers import answer
from .blocks import count
from .bodies import Chat, Completion, Turn
from .config import Config
from .engine import Engine, Sequence
from .errors import ServiceError
from .wire import ConnectionGone, Exchange

__all__ = ["Generation", "chat_prompt"]

_ROLES = frozenset(("system", "developer", "user", "assistant", "tool"))


def chat_prompt(messages: list[Turn]) -> bytes:
    """The messages through the chat template (ChatML), so that a next turn begins with all of the turn before.

    Raises:
        ServiceError: 400, there is none, or one of an unknown role.
    """
    if not messages:
        raise ServiceError(400, "messages: at least one is needed", param="messages")
    for turn in messages:
        if turn.role not in _ROLES:
            raise ServiceError(400, f"Unknown role: {turn.role}", param="messages")
    turns = "".join(f"<|im_start|>{turn.role}\n{turn.text}<|im_end|>\n" for turn in messages)
    return f"{turns}<|im_start|>assistant\n".encode()


class Generation:
    """One request's sequences and their answer. `chat` tells which of the two forms it has on the wire."""

    def __init__(self, config: Config, engine: Engine, body: Chat | Completion) -> None:
        self._config = config
        self._engine = engine
        self._body = body
        self._chat = isinstance(body, Chat)
        self._model = body.model or config.model
        self._id = f"{'chatcmpl' if self._chat else 'cmpl'}-{uuid.uuid4().hex}"
        self._created = int(time.time())
        self._sequences = [
            self._sequence(prompt, choice) for prompt in self._prompts() for choice in range(max(body.n, 1))
        ]

    def _prompts(self) -> list[bytes]:
        body = self._body
        if isinstance(body, Chat):
            if body.tools and body.tool_choice in (None, "auto"):
                text = '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'
                raise ServiceError(400, text)
            return [chat_prompt(body.messages)]
        prompts = [body.prompt] if isinstance(body.prompt, str) else body.prompt
        if not all(prompts) or not prompts:
            raise ServiceError(400, "Either prompt or prompt_embeds must be provided and non-empty.", param="prompt")
        return [prompt.encode() for prompt in prompts]

    def _sequence(self, prompt: bytes, choice: int) -> Sequence:
        body, limit = self._body, self._config.max_model_len
        asked = body.max_completion_tokens if isinstance(body, Chat) else None
        most = asked if asked is not None else body.max_tokens
        tokens = count(prompt)
        if most is not None and most < 1:
            raise ServiceError(400, f"max_tokens must be at least 1, got {most}.", param="max_tokens")
        if tokens + (most or 1) > limit:
            text = f"This model's maximum context length is {limit} tokens. However, your request has {tokens} input"
            raise ServiceError(400, f"{text} tokens and asks for {most or 1} more.", param="input_tokens")
        seed = (body.seed or 0) * 1000 + choice
        made, finish = answer(prompt, seed, most or limit - tokens, body.min_tokens, ignore_end=body.ignore_eos)
        for stop in filter(None, body.stops):
            head, found, _ = made.partition(stop.encode())
            if found and head:
                made, finish = head, "stop"
        return Sequence(prompt, made, finish)

    async def whole(self, exchange: Exchange) -> None:
        """Answer once everything is there; aborted when the client goes."""
        work = asyncio.ensure_future(asyncio.gather(*(self._collect(sequence) for sequence in self._sequences)))
        gone = asyncio.ensure_future(exchange.gone())
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise ConnectionGone
        finally:
            gone.cancel()
            work.cancel()
            await asyncio.gather(work, gone, return_exceptions=True)
        choices = [self._choice(i, text, self._sequences[i].finish) for i, text in enumerate(work.result())]
        kind = "chat.completion" if self._chat else "text_completion"
        await exchange.reply(self._head(kind) | {"choices": choices, "usage": self._usage()})

    async def stream(self, exchange: Exchange) -> None:
        """Answer piece by piece."""
        gone = asyncio.ensure_future(exchange.gone())
        started = False
        try:
            async with aclosing(self._merged(gone)) as pieces:
                async for index, piece in pieces:
                    if not started:
                        started = True
                        await exchange.start_stream()
                        await self._roles(exchange)
                    await exchange.event(self._chunk(index, piece, None))
            for index, sequence in enumerate(self._sequences):
                await exchange.event(self._chunk(index, "", sequence.finish))
            if self._body.include_usage:
                await exchange.event(self._head(self._kind) | {"choices": [], "usage": self._usage()})
            await exchange.end_stream()
        except ServiceError as error:
            await exchange.end_stream(error)
        finally:
            gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)

    async def _roles(self, exchange: Exchange) -> None:
        if self._chat:
            for index in range(len(self._sequences)):
                delta = {"role": "assistant", "content": ""}
                choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}
                await exchange.event(self._head(self._kind) | {"choices": [choice]})

    async def _merged(self, gone: asyncio.Future[None]) -> AsyncGenerator[tuple[int, str], None]:
        """Pieces of all sequences as they come. Raises `ConnectionGone` when the client goes."""
        pieces: asyncio.Queue[tuple[int, str] | None] = asyncio.Queue()

        async def feed(index: int, sequence: Sequence) -> None:
            async with aclosing(self._engine.run(sequence)) as run:
                async for piece in run:
                    pieces.put_nowait((index, piece.decode()))
            pieces.put_nowait(None)

        feeds = [asyncio.create_task(feed(i, sequence)) for i, sequence in enumerate(self._sequences)]
        gone.add_done_callback(lambda _: pieces.put_nowait(None))
        left = len(feeds)
        try:
            while left:
                piece = await pieces.get()
                if gone.done() and not gone.cancelled():
                    raise ConnectionGone
                if piece is None:
                    left -= 1
                else:
                    yield piece
        finally:
            for task in feeds:
                task.cancel()
            await asyncio.gather(*feeds, return_exceptions=True)

    async def _collect(self, sequence: Sequence) -> str:
        async with aclosing(self._engine.run(sequence)) as run:
            return b"".join([piece async for piece in run]).decode()

    @property
    def _kind(self) -> str:
        return "chat.completion.chunk" if self._chat else "text_completion"

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self._id, "object": kind, "created": self._created, "model": self._model}

    def _choice(self, index: int, text: str, finish: str) -> dict[str, Any]:
        common = {"logprobs": None, "finish_reason": finish, "stop_reason": None}
        if not self._chat:
            return {"index": index, "text": text} | common
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None, "tool_calls": []}
        return {"index": index, "message": message} | common

    def _chunk(self, index: int, text: str, finish: str | None) -> dict[str, Any]:
        common = {"logprobs": None, "finish_reason": finish, "stop_reason": None}
        part: dict[str, Any] = {"delta": {"content": text}} if self._chat else {"text": text}
        return self._head(self._kind) | {"choices": [{"index": index} | part | common], "usage": None}

    def _usage(self) -> dict[str, Any]:
        prompts = self._sequences[:: max(self._body.n, 1)]
        prompt = sum(sequence.prompt_tokens for sequence in prompts)
        completion = sum(sequence.given for sequence in self._sequences)
        details = None
        if self._config.prompt_tokens_details:
            details = {"cached_tokens": sum(sequence.cached for sequence in prompts)}
        return {
            "prompt_tokens": prompt,
            "total_tokens": prompt + completion,
            "completion_tokens": completion,
            "prompt_tokens_details": details,
        }
