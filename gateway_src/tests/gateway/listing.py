# SPDX-License-Identifier: GPL-3.0-or-later
"""A listing in the form of OpenRouter's `GET /models`, with the models that the shipped `models.yml` names.

Prices are of the order of those listed in late 2025; they are this file's own, for tests.
"""

from __future__ import annotations

import json
from typing import Any

_COMMON = ["max_tokens", "temperature", "top_p", "stop", "seed", "response_format", "structured_outputs"]
_TOOLS = [*_COMMON, "tools", "tool_choice"]

# id: (prompt, completion in USD per million, context, inputs, parameters)
MODELS: dict[str, tuple[str, str, int, list[str], list[str]]] = {
    "anthropic/claude-sonnet-4.5": ("3", "15", 1_000_000, ["text", "image", "file"], [*_TOOLS, "reasoning"]),
    "anthropic/claude-haiku-4.5": ("1", "5", 200_000, ["text", "image"], [*_TOOLS, "reasoning"]),
    "anthropic/claude-opus-4.5": ("5", "25", 200_000, ["text", "image", "file"], [*_TOOLS, "reasoning"]),
    "openai/gpt-5": ("1.25", "10", 400_000, ["text", "image", "file"], [*_TOOLS, "reasoning"]),
    "openai/gpt-5-mini": ("0.25", "2", 400_000, ["text", "image", "file"], [*_TOOLS, "reasoning"]),
    "openai/gpt-4o": ("2.5", "10", 128_000, ["text", "image", "file"], [*_TOOLS, "logprobs", "top_logprobs"]),
    "openai/gpt-4o-mini": ("0.15", "0.6", 128_000, ["text", "image", "file"], [*_TOOLS, "logprobs", "top_logprobs"]),
    "google/gemini-2.5-pro": ("1.25", "10", 1_048_576, ["text", "image", "audio"], [*_TOOLS, "reasoning"]),
    "google/gemini-2.5-flash": ("0.3", "2.5", 1_048_576, ["text", "image", "audio"], [*_TOOLS, "reasoning"]),
    "google/gemini-2.5-flash-lite": ("0.1", "0.4", 1_048_576, ["text", "image", "audio"], _TOOLS),
    "deepseek/deepseek-chat-v3.1": ("0.2", "0.8", 163_840, ["text"], _TOOLS),
    "deepseek/deepseek-r1": ("0.7", "2.4", 163_840, ["text"], [*_COMMON, "reasoning"]),
    "qwen/qwen3-coder": ("0.22", "0.95", 262_144, ["text"], _TOOLS),
    "qwen/qwen3-235b-a22b": ("0.18", "0.54", 40_960, ["text"], _TOOLS),
    "mistralai/mistral-small-3.2-24b-instruct": ("0.06", "0.18", 131_072, ["text", "image"], _TOOLS),
    "mistralai/codestral-2508": ("0.3", "0.9", 256_000, ["text"], _TOOLS),
    "meta-llama/llama-3.3-70b-instruct": ("0.13", "0.39", 131_072, ["text"], _TOOLS),
    "meta-llama/llama-3.1-8b-instruct": ("0.02", "0.03", 16_384, ["text"], _COMMON),
}


def entry(name: str, /, **changes: Any) -> dict[str, Any]:
    """One listed model; `changes` replace top-level fields."""
    prompt, completion, context, inputs, parameters = MODELS[name]
    pricing: dict[str, Any] = {
        "prompt": per_token(prompt),
        "completion": per_token(completion),
        "request": "0",
        "image": "0",
    }
    if name.startswith("anthropic/"):
        pricing |= {"input_cache_read": per_token(prompt, "0.1"), "input_cache_write": per_token(prompt, "1.25")}
    if name == "google/gemini-2.5-pro":
        pricing["overrides"] = [{"min_prompt_tokens": 200_000, "prompt": "0.0000025", "completion": "0.000015"}]
    return {
        "id": name,
        "canonical_slug": f"{name}-20251001",
        "name": name,
        "created": 1_750_000_000,
        "context_length": context,
        "architecture": {"input_modalities": inputs, "output_modalities": ["text"]},
        "pricing": pricing,
        "top_provider": {"context_length": context, "max_completion_tokens": 32_000, "is_moderated": False},
        "per_request_limits": None,
        "supported_parameters": parameters,
        "expiration_date": None,
        **changes,
    }


def per_token(usd_per_million: str, times: str = "1") -> str:
    """USD per million tokens as the listing writes it."""
    from decimal import Decimal

    return f"{Decimal(usd_per_million) * Decimal(times) / 1_000_000:f}"


def embedding() -> dict[str, Any]:
    """The embedding model."""
    return {
        "id": "openai/text-embedding-3-small",
        "canonical_slug": "openai/text-embedding-3-small",
        "name": "Text Embedding 3 Small",
        "created": 1_700_000_000,
        "context_length": 8192,
        "architecture": {"input_modalities": ["text"], "output_modalities": ["embeddings"]},
        "pricing": {"prompt": "0.00000002", "completion": "0"},
        "top_provider": {"context_length": 8192, "max_completion_tokens": None},
        "supported_parameters": [],
    }


def router() -> dict[str, Any]:
    """OpenRouter's own router, whose price is not known beforehand."""
    return {
        "id": "openrouter/auto",
        "canonical_slug": "openrouter/auto",
        "name": "Auto Router",
        "created": 1_700_000_000,
        "context_length": 2_000_000,
        "architecture": {"input_modalities": ["text", "image"], "output_modalities": ["text"]},
        "pricing": {"prompt": "-1", "completion": "-1"},
        "top_provider": {"context_length": None, "max_completion_tokens": None},
        "supported_parameters": _TOOLS,
    }


def body(*more: Any, without: tuple[str, ...] = ()) -> bytes:
    """The body of `GET /models`."""
    data = [entry(name) for name in MODELS if name not in without]
    return json.dumps({"data": [*data, embedding(), router(), *more]}).encode()
