# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests as the server reads them; what it does not know, it ignores (vLLM docs, "OpenAI-Compatible Server")."""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = ["Chat", "Completion", "Embedding", "Part", "StreamOptions", "Turn"]


class StreamOptions(msgspec.Struct):
    """`stream_options`."""

    include_usage: bool = False


class Part(msgspec.Struct):
    """A part of a message's content."""

    type: str
    text: str = ""


class Turn(msgspec.Struct):
    """A message."""

    role: str
    content: str | list[Part] | None = None

    @property
    def text(self) -> str:
        """Its texts, joined."""
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content if part.type == "text")
        return self.content or ""


class _Sampling(msgspec.Struct, kw_only=True):
    model: str | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: int = 1
    seed: int | None = None
    stop: str | list[str] | None = None
    min_tokens: int = 0
    ignore_eos: bool = False
    max_tokens: int | None = None

    @property
    def stops(self) -> list[str]:
        """The texts that end an answer."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with its usage."""
        return self.stream_options is not None and self.stream_options.include_usage


class Chat(_Sampling, kw_only=True):
    """The body of `POST /v1/chat/completions`."""

    messages: list[Turn]
    max_completion_tokens: int | None = None
    tools: list[Any] | None = None
    tool_choice: Any = None


class Completion(_Sampling, kw_only=True):
    """The body of `POST /v1/completions`."""

    prompt: str | list[str]
    max_tokens: int | None = 16


class Embedding(msgspec.Struct, kw_only=True):
    """The body of `POST /v1/embeddings`."""

    input: str | list[str]
    model: str | None = None
    encoding_format: str = "float"
    dimensions: int | None = None
