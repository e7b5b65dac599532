# SPDX-License-Identifier: GPL-3.0-or-later
"""Chat completions (OpenAI API reference "Chat"; OpenRouter `POST /chat/completions`)."""

from __future__ import annotations

import time
from decimal import Decimal
from typing import Any

import msgspec

from sophia.errors import ApiError
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

__all__ = ["CHAT", "Chat"]


class _PromptDetails(msgspec.Struct):
    cached_tokens: int | None = 0


class _CompletionDetails(msgspec.Struct):
    reasoning_tokens: int | None = 0


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: Decimal | None = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None

    def usage(self) -> Usage:
        prompt = self.prompt_tokens_details
        completion = self.completion_tokens_details
        tokens = Tokens(
            self.prompt_tokens,
            self.completion_tokens,
            (prompt.cached_tokens or 0) if prompt else 0,
            (completion.reasoning_tokens or 0) if completion else 0,
        )
        return to_usage(self.cost, tokens)


class _Message(msgspec.Struct):
    content: Any = None
    tool_calls: msgspec.Raw = msgspec.Raw()
    reasoning: str | None = None
    refusal: str | None = None


class _Choice(msgspec.Struct):
    message: _Message | None = None
    delta: _Message | None = None
    finish_reason: str | None = None
    error: Any = None


class _Answer(msgspec.Struct):
    id: str | None = None
    model: str | None = None
    provider: str | None = None
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class _ResponseFormat(msgspec.Struct):
    type: str = "text"


_ANSWER = msgspec.json.Decoder(_Answer)

_PARAMETERS = frozenset(
    {
        "frequency_penalty",
        "logit_bias",
        "logprobs",
        "max_completion_tokens",
        "max_tokens",
        "min_p",
        "parallel_tool_calls",
        "presence_penalty",
        "reasoning",
        "reasoning_effort",
        "repetition_penalty",
        "response_format",
        "seed",
        "stop",
        "temperature",
        "tool_choice",
        "tools",
        "top_a",
        "top_k",
        "top_logprobs",
        "top_p",
        "verbosity",
        "web_search_options",
    }
)
_STRUCTURED = frozenset({"structured_outputs"})


class Chat:
    """The `chat.completions` dialect."""

    api = "chat"
    path = "/chat/completions"

    def read(self, body: bytes) -> Call:
        fields = decode_fields(body)
        turns, size, images = read_turns(fields, "messages")
        options = member(fields, "stream_options", _StreamOptions)
        layout = member(fields, "response_format", _ResponseFormat)
        return Call(
            fields=fields,
            model=member(fields, "model", str, "auto"),
            stream=member(fields, "stream", bool, False),
            turns=turns,
            prompt_bytes=size,
            tool_bytes=size_of(fields, "tools", "response_format", "functions"),
            images=images,
            choices=positive(fields, "n") or 1,
            max_output=positive(fields, "max_completion_tokens") or positive(fields, "max_tokens"),
            include_usage=bool(options and options.include_usage),
            inputs=inputs_of(images),
            parameters=listed(fields, _PARAMETERS)
            | (_STRUCTURED if layout is not None and layout.type == "json_schema" else frozenset()),
            models=tuple(member(fields, "models", list[str], ())),
            provider=member(fields, "provider", dict[str, Any], {}),
        )

    def rewrite(self, call: Call, model: str, max_output: int | None, provider: dict[str, Any]) -> bytes:
        values: dict[str, Any] = {"model": model, "models": None, "provider": provider}
        if max_output is not None:
            name = "max_completion_tokens" if "max_completion_tokens" in call.fields else "max_tokens"
            values[name] = max_output
        return replace(call.fields, **values)

    def result(self, body: bytes) -> Result:
        answer = _decode(body)
        choices = answer.choices or []
        first = choices[0] if choices else _Choice()
        message = first.message or _Message()
        failed = answer.error is not None or not choices or any(_broken(choice) for choice in choices)
        return Result(
            generation=answer.id,
            model=answer.model,
            provider=answer.provider,
            usage=answer.usage.usage() if answer.usage else None,
            finish=first.finish_reason,
            text=message.content if isinstance(message.content, str) else "",
            tool_calls=given(message.tool_calls),
            failed=failed,
        )

    def piece(self, event: Event) -> Piece:
        if event.data is None:
            return Piece(PieceKind.OTHER)
        if event.data == b"[DONE]":
            return Piece(PieceKind.DONE)
        answer = _decode(event.data)
        choices = answer.choices or []
        if len(choices) == 1 and answer.usage is None and answer.error is None:
            text = _plain(choices[0])
            if text is not None:
                return Piece(PieceKind.CONTENT, answer.id, answer.model, answer.provider, text)
        finish = next((choice.finish_reason for choice in choices if choice.finish_reason), None)
        delta = choices[0].delta if choices else None
        if answer.error is not None or any(_broken(choice) for choice in choices):
            kind = PieceKind.ERROR
        elif finish is not None:
            kind = PieceKind.FINISH
        elif answer.usage is not None and not choices:
            kind = PieceKind.USAGE
        elif delta is not None and (delta.content or given(delta.tool_calls) or delta.reasoning or delta.refusal):
            kind = PieceKind.CONTENT
        else:
            kind = PieceKind.HEAD
        return Piece(
            kind,
            answer.id,
            answer.model,
            answer.provider,
            delta.content if delta is not None and isinstance(delta.content, str) else "",
            finish,
            answer.usage.usage() if answer.usage else None,
        )

    def error(self, error: ApiError) -> bytes:
        return openai_error(error)

    def error_event(self, error: ApiError, model: str, generation: str) -> bytes:
        """A chunk that carries the error: the OpenAI SDK raises on `error`, the OpenRouter SDK reads the chunk."""
        chunk = {
            "id": generation,
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": model,
            "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": "error"}],
            "error": {
                "code": error.status,
                "message": error.message,
                "type": error.type,
                "metadata": {"error_type": error.code},
            },
        }
        return sse(chunk)


def _decode(data: bytes) -> _Answer:
    try:
        return _ANSWER.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ValueError(str(error)) from error


def _broken(choice: _Choice) -> bool:
    return choice.error is not None or choice.finish_reason == "error"


def _plain(choice: _Choice) -> str | None:
    """The text of a choice that has text and nothing else to say, as nearly all of a stream's do."""
    delta = choice.delta
    if delta is None or choice.finish_reason is not None or choice.error is not None:
        return None
    return delta.content if delta.content and isinstance(delta.content, str) else None


CHAT = Chat()
