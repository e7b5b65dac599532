# SPDX-License-Identifier: GPL-3.0-or-later
"""Messages (Anthropic API reference "Messages"; OpenRouter `POST /messages`)."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec

from sophia.errors import ApiError, BadRequest
from sophia.gateway.dialects.base import (
    Call,
    Piece,
    PieceKind,
    Result,
    Usage,
    decode_fields,
    given,
    inputs_of,
    listed,
    member,
    positive,
    read_turns,
    replace,
    size_of,
    sse,
    to_usage,
)
from sophia.gateway.sse import Event
from sophia.stores.model import Tokens

__all__ = ["MESSAGES", "Messages"]

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


class _Usage(msgspec.Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cost: Decimal | None = None


class _Block(msgspec.Struct):
    type: str = "text"
    text: str | None = None


class _Message(msgspec.Struct):
    model: str | None = None
    provider: str | None = None
    content: list[_Block] | None = None
    stop_reason: str | None = None
    usage: _Usage | None = None
    type: str = "message"
    error: msgspec.Raw = msgspec.Raw()


class _Delta(msgspec.Struct):
    text: str | None = None
    stop_reason: str | None = None


class _StreamEvent(msgspec.Struct):
    type: str
    message: _Message | None = None
    delta: _Delta | None = None
    usage: _Usage | None = None


_MESSAGE = msgspec.json.Decoder(_Message)
_EVENT = msgspec.json.Decoder(_StreamEvent)
_PARAMETERS = frozenset({"max_tokens", "temperature", "tool_choice", "tools", "top_k", "top_p"})


class Messages:
    """The `messages` dialect."""

    api = "messages"
    path = "/messages"

    def read(self, body: bytes) -> Call:
        fields = decode_fields(body)
        turns, size, images = read_turns(fields, "messages")
        if "max_tokens" not in fields:
            raise BadRequest("missing_required_parameter", "max_tokens: must be given", param="max_tokens")
        return Call(
            fields=fields,
            model=member(fields, "model", str, "auto"),
            stream=member(fields, "stream", bool, False),
            turns=turns,
            prompt_bytes=size,
            tool_bytes=size_of(fields, "tools", "system"),
            images=images,
            max_output=positive(fields, "max_tokens"),
            inputs=inputs_of(images),
            parameters=listed(fields, _PARAMETERS),
            models=tuple(member(fields, "models", list[str], ())),
            provider=member(fields, "provider", dict[str, Any], {}),
        )

    def rewrite(self, call: Call, model: str, max_output: int | None, provider: dict[str, Any]) -> bytes:
        values: dict[str, Any] = {
            "model": model,
            "models": None,
            "fallbacks": None,
            "provider": provider,
        }
        if max_output is not None:
            values["max_tokens"] = max_output
        return replace(call.fields, **values)

    def result(self, body: bytes) -> Result:
        try:
            message = _MESSAGE.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise ValueError(str(error)) from error
        blocks = message.content or []
        nothing = not blocks and message.stop_reason is None
        return Result(
            generation=None,
            model=message.model,
            provider=message.provider,
            usage=_usage(message.usage),
            finish=message.stop_reason,
            text="".join(block.text or "" for block in blocks),
            tool_calls=any(block.type == "tool_use" for block in blocks),
            failed=message.type == "error" or given(message.error) or nothing,
        )

    def piece(self, event: Event) -> Piece:
        if event.data is None:
            return Piece(PieceKind.OTHER)
        if event.data == b"[DONE]":
            return Piece(PieceKind.OTHER)
        try:
            value = _EVENT.decode(event.data)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise ValueError(str(error)) from error
        if value.type == "error":
            return Piece(PieceKind.ERROR)
        if value.type == "message_start" and value.message is not None:
            return Piece(PieceKind.HEAD, model=value.message.model, provider=value.message.provider)
        if value.type == "content_block_delta":
            return Piece(PieceKind.CONTENT, text=(value.delta.text or "") if value.delta else "")
        if value.type == "message_delta":
            finish = value.delta.stop_reason if value.delta else None
            return Piece(PieceKind.FINISH, finish=finish, usage=_usage(value.usage))
        if value.type == "message_stop":
            return Piece(PieceKind.DONE)
        return Piece(PieceKind.OTHER)

    def error(self, error: ApiError) -> bytes:
        return msgspec.json.encode(_error(error))

    def error_event(self, error: ApiError, model: str, generation: str) -> bytes:
        return sse(_error(error), "error")


def _usage(usage: _Usage | None) -> Usage | None:
    """None where the counts are not there yet (the opening event of a stream has the prompt's only)."""
    if usage is None or usage.output_tokens is None:
        return None
    cached = usage.cache_read_input_tokens or 0
    prompt = (usage.input_tokens or 0) + cached + (usage.cache_creation_input_tokens or 0)
    return to_usage(usage.cost, Tokens(prompt, usage.output_tokens, cached))


def _error(error: ApiError) -> dict[str, Any]:
    kind = _TYPES.get(error.status, "api_error")
    return {"type": "error", "error": {"type": kind, "message": error.message, "code": error.code}}


MESSAGES = Messages()
