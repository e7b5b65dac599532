# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan's own `POST /v1/chat`: a message in, an answer with its model, reason, tokens, cost and budget left out.

It is chat completions underneath; with a `conversation` the turns before are kept here and sent along.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any, Literal

import msgspec

from sophia.errors import BadRequest
from sophia.gateway.answer import SSE, cache_word, headers_of, open_stream
from sophia.gateway.asgi import deadline_of, disconnected, is_batch, is_final, respond, start
from sophia.gateway.cache import CacheControls, Hit
from sophia.gateway.dialects import CHAT
from sophia.gateway.exchange import Exchange
from sophia.gateway.idempotency import Idempotency
from sophia.gateway.pipeline import Journey, Pipeline
from sophia.gateway.relay import Relay
from sophia.gateway.sse import Parser
from sophia.gateway.trace import Tracer
from sophia.money import dollars
from sophia.stores.conversations import Conversations, Said
from sophia.stores.model import Principal, Tokens, new_id

__all__ = ["ChatApi"]

_JSON = (b"content-type", b"application/json")
_ENCODER = msgspec.json.Encoder(decimal_format="number")


class _Turn(msgspec.Struct):
    role: Literal["system", "user", "assistant"]
    content: str


class _Message(msgspec.Struct, forbid_unknown_fields=True):
    message: str
    model_preference: Literal["fast", "quality", "code", "balanced", "auto"] = "auto"
    context: str | list[_Turn] | None = None
    stream: bool = False
    conversation: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None


class _Answer(msgspec.Struct, omit_defaults=True):
    id: str
    text: str
    model: str
    reason: str
    preference: str | None
    tokens: Tokens
    cost: Decimal | None
    cache: str
    budget_left: Decimal | None
    conversation: str | None = None
    finish: str | None = None


_DECODER = msgspec.json.Decoder(_Message)


class ChatApi:
    """`budget_left(principal)` is in nano-dollars, None without a budget."""

    def __init__(
        self,
        pipeline: Pipeline,
        conversations: Conversations,
        idempotency: Idempotency,
        tracer: Tracer,
        budget_left: Callable[[Principal], Awaitable[int | None]],
    ) -> None:
        self._pipeline = pipeline
        self._conversations = conversations
        self._idempotency = idempotency
        self._tracer = tracer
        self._budget_left = budget_left

    async def serve(self, exchange: Exchange, principal: Principal, body: bytes) -> None:
        """Answer one message.

        Raises:
            ApiError: as the hot routes do.
        """
        message = _read(body)
        conversation = message.conversation
        before: list[Said] = []
        if conversation == "new":
            conversation = new_id("conv")
        elif conversation is not None:
            before = await self._conversations.turns(principal, conversation)
        call = CHAT.read(_completion(message, before))
        journey = await self._pipeline.prepare(
            principal,
            CHAT,
            call,
            exchange.identity,
            exchange.received,
            CacheControls.parse(exchange.scope["headers"]),
            self._tracer.outgoing(exchange.span),
            deadline_of(exchange.scope),
            is_final(exchange.scope),
            is_batch(exchange.scope),
        )
        exchange.model = journey.plan.candidates[0].model.id
        if await self._idempotency.replayed(exchange, body, journey.rate_headers):
            return
        hit = await self._pipeline.lookup(journey)
        if hit is None and message.stream:
            await self._stream(exchange, principal, message, journey, conversation)
            return
        answer = await self._whole(exchange, principal, journey, hit, conversation)
        await self._remember(principal, conversation, message, answer.text)
        await self._send_whole(exchange, message, answer, journey)

    async def _remember(self, principal: Principal, conversation: str | None, message: _Message, text: str) -> None:
        """Keep a turn, before its end is sent: the next message may come at once."""
        if conversation is not None:
            said = [Said("user", message.message), Said("assistant", text)]
            await self._conversations.add(principal, conversation, said)

    async def _whole(
        self, exchange: Exchange, principal: Principal, journey: Journey, hit: Hit | None, conversation: str | None
    ) -> _Answer:
        if hit is not None:
            result = CHAT.result(hit.answer.body)
            exchange.cost = 0
            return await self._answer(
                exchange,
                principal,
                journey,
                result.text,
                hit.answer.model,
                Tokens(),
                hit.kind,
                result.finish,
                conversation,
            )
        try:
            delivered = await self._pipeline.whole(journey)
        finally:
            exchange.waited = journey.request.waited
        exchange.model = delivered.candidate.model.id
        exchange.cost = delivered.cost
        result = delivered.result
        tokens = result.usage.tokens if result.usage is not None else Tokens()
        return await self._answer(
            exchange,
            principal,
            journey,
            result.text,
            result.model or exchange.model,
            tokens,
            cache_word(journey),
            result.finish,
            conversation,
        )

    async def _answer(
        self,
        exchange: Exchange,
        principal: Principal,
        journey: Journey,
        text: str,
        model: str,
        tokens: Tokens,
        cache: str,
        finish: str | None,
        conversation: str | None,
    ) -> _Answer:
        left = await self._budget_left(principal)
        return _Answer(
            id=exchange.identity,
            text=text,
            model=model,
            reason=journey.plan.reason,
            preference=journey.plan.preference,
            tokens=tokens,
            cost=None if exchange.cost is None else dollars(exchange.cost),
            cache=cache,
            budget_left=None if left is None else dollars(left),
            conversation=conversation,
            finish=finish,
        )

    async def _send_whole(self, exchange: Exchange, message: _Message, answer: _Answer, journey: Journey) -> None:
        exchange.status = 200
        exchange.started = True
        headers = headers_of(exchange, journey, SSE if message.stream else [_JSON], answer.model, answer.cache)
        if not message.stream:
            await respond(exchange.send, 200, headers, _ENCODER.encode(answer))
            return
        await start(exchange.send, 200, headers)
        body = _event({"delta": answer.text}) + _event(
            {"done": True} | msgspec.to_builtins(answer, builtin_types=(Decimal,))
        )
        await exchange.send({"type": "http.response.body", "body": body})

    async def _stream(
        self, exchange: Exchange, principal: Principal, message: _Message, journey: Journey, conversation: str | None
    ) -> None:
        """Relay the text; a turn is kept only where it came whole."""
        gone = asyncio.create_task(disconnected(exchange.receive))

        async def begin(model: str) -> None:
            if not exchange.started:
                exchange.status = 200
                exchange.started = True
                await start(exchange.send, 200, headers_of(exchange, journey, SSE, model, cache_word(journey)))

        try:
            relay = await open_stream(self._pipeline, exchange, journey, gone, begin)
            if relay is None:
                return
            try:
                await begin(relay.model)
                await self._relay(exchange, principal, message, journey, conversation, relay, gone)
            finally:
                await relay.abort()
                exchange.cost = relay.cost
                await self._pipeline.streamed(journey, relay)
        finally:
            gone.cancel()

    async def _relay(
        self,
        exchange: Exchange,
        principal: Principal,
        message: _Message,
        journey: Journey,
        conversation: str | None,
        relay: Relay,
        gone: asyncio.Task[None],
    ) -> None:
        text: list[str] = []
        async for delta in _deltas(relay):
            if gone.done():
                return
            text.append(delta)
            await exchange.send({"type": "http.response.body", "body": _event({"delta": delta}), "more_body": True})
        exchange.cost = relay.cost
        if relay.failure is not None:
            error = relay.error()
            exchange.code = error.code
            event = _event({"error": {"code": error.code, "message": error.message, "type": error.type}})
            await exchange.send({"type": "http.response.body", "body": event})
            return
        if gone.done():
            return
        await self._remember(principal, conversation, message, "".join(text))
        answer = await self._answer(
            exchange,
            principal,
            journey,
            "".join(text),
            relay.model,
            relay.tokens,
            cache_word(journey),
            relay.finish,
            conversation,
        )
        done = {"done": True} | msgspec.to_builtins(answer, builtin_types=(Decimal,))
        done.pop("text", None)
        await exchange.send({"type": "http.response.body", "body": _event(done)})


async def _deltas(relay: Relay) -> Any:
    parser = Parser()
    async for piece in relay.pieces():
        for event in parser.feed(piece):
            if event.data is not None and event.data != b"[DONE]":
                delta = CHAT.piece(event).text
                if delta:
                    yield delta


def _read(body: bytes) -> _Message:
    try:
        message = _DECODER.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadRequest(
            "invalid_value",
            f"{error}: POST /v1/chat takes message, model_preference, context, stream, "
            "conversation, max_tokens, temperature",
        ) from error
    if not message.message.strip():
        raise BadRequest("missing_required_parameter", "message: must not be empty", param="message")
    return message


def _completion(message: _Message, before: list[Said]) -> bytes:
    """The chat completion that the message stands for."""
    turns: list[dict[str, str]] = []
    if isinstance(message.context, str):
        turns.append({"role": "system", "content": message.context})
    elif message.context is not None:
        turns += [{"role": turn.role, "content": turn.content} for turn in message.context]
    turns += [{"role": said.role, "content": said.text} for said in before]
    turns.append({"role": "user", "content": message.message})
    preference = message.model_preference
    completion: dict[str, Any] = {
        "model": "auto" if preference == "auto" else f"auto:{preference}",
        "messages": turns,
        "stream": message.stream,
    }
    if message.stream:
        completion["stream_options"] = {"include_usage": True}
    if message.max_tokens is not None:
        completion["max_tokens"] = message.max_tokens
    if message.temperature is not None:
        completion["temperature"] = message.temperature
    return msgspec.json.encode(completion)


def _event(value: Any) -> bytes:
    return b"data: " + _ENCODER.encode(value) + b"\n\n"
