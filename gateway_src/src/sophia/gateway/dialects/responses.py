# SPDX-License-Identifier: GPL-3.0-or-later
"""Responses (OpenAI API reference "Responses"; OpenRouter `POST /responses`, which is stateless)."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec

from sophia.errors import ApiError, BadRequest
from sophia.gateway.dialects.base import (
    Call,
    Part,
    Piece,
    PieceKind,
    Result,
    Turn,
    Usage,
    decode_fields,
    given,
    inputs_of,
    listed,
    member,
    openai_error,
    positive,
    read_turns,
    replace,
    size_of,
    sse,
    to_usage,
)
from sophia.gateway.sse import Event
from sophia.stores.model import Tokens

__all__ = ["RESPONSES", "Responses"]


class _InputDetails(msgspec.Struct):
    cached_tokens: int | None = 0


class _OutputDetails(msgspec.Struct):
    reasoning_tokens: int | None = 0


class _Usage(msgspec.Struct):
    input_tokens: int = 0
    output_tokens: int = 0
    cost: Decimal | None = None
    input_tokens_details: _InputDetails | None = None
    output_tokens_details: _OutputDetails | None = None

    def usage(self) -> Usage:
        cached = (self.input_tokens_details.cached_tokens or 0) if self.input_tokens_details else 0
        reasoning = (self.output_tokens_details.reasoning_tokens or 0) if self.output_tokens_details else 0
        return to_usage(self.cost, Tokens(self.input_tokens, self.output_tokens, cached, reasoning))


class _Item(msgspec.Struct):
    type: str = "message"
    content: list[Part] | None = None


class _Incomplete(msgspec.Struct):
    reason: str | None = None


class _Answer(msgspec.Struct):
    id: str | None = None
    model: str | None = None
    status: str | None = None
    output: list[_Item] | None = None
    usage: _Usage | None = None
    error: msgspec.Raw = msgspec.Raw()
    incomplete_details: _Incomplete | None = None

    def broken(self) -> bool:
        return self.status == "failed" or given(self.error)

    def empty(self) -> bool:
        """Nothing came, not even thoughts that used up the output."""
        spent = self.usage is not None and self.usage.output_tokens
        return not self.output and (self.status == "completed" or not spent)

    def finish(self) -> str | None:
        if self.status == "completed":
            return "stop"
        if self.status == "incomplete":
            return "length"
        return self.status


class _StreamEvent(msgspec.Struct):
    type: str
    delta: Any = None
    response: _Answer | None = None


class _Text(msgspec.Struct):
    format: dict[str, Any] | None = None


_ANSWER = msgspec.json.Decoder(_Answer)
_EVENT = msgspec.json.Decoder(_StreamEvent)
_PARAMETERS = frozenset({"parallel_tool_calls", "reasoning", "temperature", "tool_choice", "tools", "top_p"})
_STRUCTURED = frozenset({"structured_outputs"})
_ENDS = frozenset({"response.completed", "response.incomplete"})
_ERRORS = frozenset({"response.failed", "response.error", "error"})


class Responses:
    """The `responses` dialect."""

    api = "responses"
    path = "/responses"

    def read(self, body: bytes) -> Call:
        fields = decode_fields(body)
        raw = fields.get("input")
        if raw is None or not given(raw):
            raise BadRequest("missing_required_parameter", "input: give a text or a list of items", param="input")
        if member(fields, "previous_response_id", str) or member(fields, "store", bool):
            raise BadRequest(
                "stateless_only", "previous_response_id and store are not supported: send the whole conversation"
            )
        if bytes(raw).lstrip()[:1] == b'"':
            turns = [Turn("user", member(fields, "input", str))]
            size, images = len(bytes(raw)) + 16, 0
        else:
            turns, size, images = read_turns(fields, "input")
        text = member(fields, "text", _Text)
        return Call(
            fields=fields,
            model=member(fields, "model", str, "auto"),
            stream=member(fields, "stream", bool, False),
            turns=turns,
            prompt_bytes=size,
            tool_bytes=size_of(fields, "tools", "instructions", "text"),
            images=images,
            max_output=positive(fields, "max_output_tokens"),
            inputs=inputs_of(images),
            parameters=listed(fields, _PARAMETERS)
            | (_STRUCTURED if text and text.format and text.format.get("type") == "json_schema" else frozenset()),
            models=tuple(member(fields, "models", list[str], ())),
            provider=member(fields, "provider", dict[str, Any], {}),
        )

    def rewrite(self, call: Call, model: str, max_output: int | None, provider: dict[str, Any]) -> bytes:
        values: dict[str, Any] = {"model": model, "models": None, "provider": provider}
        if max_output is not None:
            values["max_output_tokens"] = max_output
        return replace(call.fields, **values)

    def result(self, body: bytes) -> Result:
        try:
            answer = _ANSWER.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise ValueError(str(error)) from error
        items = answer.output or []
        text = "".join(part.text or "" for item in items for part in item.content or [])
        return Result(
            generation=None,
            model=answer.model,
            provider=None,
            usage=answer.usage.usage() if answer.usage else None,
            finish=answer.finish(),
            text=text,
            tool_calls=any(item.type == "function_call" for item in items),
            failed=answer.broken() or answer.status is None or answer.empty(),
        )

    def piece(self, event: Event) -> Piece:
        if event.data is None:
            return Piece(PieceKind.OTHER)
        if event.data == b"[DONE]":
            return Piece(PieceKind.DONE)
        try:
            value = _EVENT.decode(event.data)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise ValueError(str(error)) from error
        answer = value.response
        usage = answer.usage.usage() if answer is not None and answer.usage else None
        model = answer.model if answer is not None else None
        if value.type in _ERRORS:
            return Piece(PieceKind.ERROR, model=model, usage=usage)
        if value.type in _ENDS:
            return Piece(PieceKind.FINISH, model=model, finish=answer.finish() if answer else "stop", usage=usage)
        if value.type.endswith(".delta"):
            text = value.delta if value.type == "response.output_text.delta" and isinstance(value.delta, str) else ""
            return Piece(PieceKind.CONTENT, text=text)
        return Piece(PieceKind.HEAD if answer is not None else PieceKind.OTHER, model=model)

    def error(self, error: ApiError) -> bytes:
        return openai_error(error)

    def error_event(self, error: ApiError, model: str, generation: str) -> bytes:
        event = {
            "type": "error",
            "code": error.code,
            "message": error.message,
            "param": error.param,
            "sequence_number": 0,
        }
        return sse(event, "error")


RESPONSES = Responses()
