# SPDX-License-Identifier: GPL-3.0-or-later
"""Embeddings (OpenAI API reference "Embeddings"; OpenRouter `POST /embeddings`)."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec

from sophia.errors import ApiError, BadRequest
from sophia.gateway.dialects.base import (
    Call,
    Piece,
    Result,
    decode_fields,
    given,
    member,
    openai_error,
    replace,
    to_usage,
)
from sophia.gateway.sse import Event
from sophia.stores.model import Tokens

__all__ = ["EMBEDDINGS", "Embeddings"]


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    cost: Decimal | None = None


class _Answer(msgspec.Struct):
    id: str | None = None
    model: str | None = None
    provider: str | None = None
    data: list[msgspec.Raw] | None = None
    usage: _Usage | None = None
    error: msgspec.Raw = msgspec.Raw()


_ANSWER = msgspec.json.Decoder(_Answer)


class Embeddings:
    """The `embeddings` dialect: never streamed, no output tokens."""

    api = "embeddings"
    path = "/embeddings"

    def read(self, body: bytes) -> Call:
        fields = decode_fields(body)
        model = member(fields, "model", str)
        if model is None:
            raise BadRequest("missing_required_parameter", "model: name an embedding model", param="model")
        raw = fields.get("input")
        if raw is None or bytes(raw) in (b"null", b'""', b"[]"):
            raise BadRequest("missing_required_parameter", "input: give a text or a list of texts", param="input")
        size = len(bytes(raw))
        provider = member(fields, "provider", dict[str, Any], {})
        return Call(fields=fields, model=model, prompt_bytes=size, max_output=0, provider=provider)

    def rewrite(self, call: Call, model: str, max_output: int | None, provider: dict[str, Any]) -> bytes:
        return replace(call.fields, model=model, provider=provider)

    def result(self, body: bytes) -> Result:
        try:
            answer = _ANSWER.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise ValueError(str(error)) from error
        usage = to_usage(answer.usage.cost, Tokens(answer.usage.prompt_tokens)) if answer.usage else None
        failed = given(answer.error) or not answer.data
        return Result(answer.id, answer.model, answer.provider, usage, None if failed else "stop", failed=failed)

    def piece(self, event: Event) -> Piece:
        raise ValueError("embeddings are not streamed")

    def error(self, error: ApiError) -> bytes:
        return openai_error(error)

    def error_event(self, error: ApiError, model: str, generation: str) -> bytes:
        raise ValueError("embeddings are not streamed")


EMBEDDINGS = Embeddings()
