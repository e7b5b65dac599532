# SPDX-License-Identifier: GPL-3.0-or-later
"""A question to a model, whichever API it came through."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from . import tokens

__all__ = ["Ask", "MaxPrice", "Preferences", "Thinking", "Tool", "Turn"]


class MaxPrice(msgspec.Struct, frozen=True, kw_only=True):
    """`provider.max_price`: USD per million tokens (`prompt`, `completion`), per request, per image."""

    prompt: str | float | None = None
    completion: str | float | None = None
    request: str | float | None = None
    image: str | float | None = None


class Preferences(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`provider` of a request (ProviderPreferences)."""

    order: list[str] | None = None
    only: list[str] | None = None
    ignore: list[str] | None = None
    allow_fallbacks: bool | None = None
    require_parameters: bool | None = None
    data_collection: str | None = None
    zdr: bool | None = None
    enforce_distillable_text: bool | None = None
    quantizations: list[str] | None = None
    sort: str | dict[str, Any] | None = None
    max_price: MaxPrice | None = None
    preferred_min_throughput: float | dict[str, float] | None = None
    preferred_max_latency: float | dict[str, float] | None = None
    options: dict[str, Any] | None = None


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """A function that the model may call."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """A message: its text, and the URLs of its images."""

    role: str
    text: str
    images: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Thinking:
    """What the request says about reasoning; None where it says nothing."""

    effort: str | None = None
    max_tokens: int | None = None
    enabled: bool | None = None
    exclude: bool = False


NO_THINKING = Thinking()
NO_PREFERENCES = Preferences()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A question in the form that answers are made from. `parameters` are what `require_parameters` looks at."""

    models: Sequence[str]
    turns: Sequence[Turn]
    api_type: str = "completions"
    parameters: Sequence[str] = ()
    tools: Sequence[Tool] = ()
    tools_text: str = ""
    tool_choice: str = "auto"
    json_mode: bool = False
    schema: dict[str, Any] | None = None
    max_tokens: int | None = None
    stop: Sequence[str] = ()
    seed: int | None = None
    n: int = 1
    preferences: Preferences = NO_PREFERENCES
    thinking: Thinking = NO_THINKING
    session_id: str | None = None
    user: str | None = None
    stream: bool = False
    cache_write: bool = False

    @property
    def embeds(self) -> bool:
        """Whether this asks for embeddings; then each turn is an input."""
        return self.api_type == "embeddings"

    @property
    def question(self) -> str:
        """The last thing that the user said."""
        return next((turn.text for turn in reversed(self.turns) if turn.role == "user"), "")

    @property
    def images(self) -> int:
        """How many images the prompt has."""
        return sum(len(turn.images) for turn in self.turns)

    def prompt_tokens(self, *, image_tokens: bool) -> int:
        """Tokens of the whole prompt; `image_tokens` is False where images have a price of their own."""
        if self.embeds:
            return sum(tokens.count(turn.text) for turn in self.turns)
        total = tokens.PROMPT_TOKENS + tokens.count(self.tools_text)
        for turn in self.turns:
            total += tokens.MESSAGE_TOKENS + tokens.count(turn.text)
            if turn.images and image_tokens:
                total += sum(min(tokens.IMAGE_TOKENS, tokens.count(url)) for url in turn.images)
        return total

    def prompt_bytes(self) -> bytes:
        """The prompt as the prompt cache sees it."""
        parts = [self.tools_text]
        parts.extend(f"{turn.role}\n{turn.text}\n{' '.join(turn.images)}" for turn in self.turns)
        return "\n".join(parts).encode("utf-8", "surrogatepass")
