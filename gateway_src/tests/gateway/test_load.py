# SPDX-License-Identifier: GPL-3.0-or-later
"""A request's bound, read from what it asks for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sophia.errors import BadRequest
from sophia.gateway.dialects import CHAT, MESSAGES
from sophia.gateway.load import load_of, max_price_of
from sophia.gateway.prices import FEMTO, Load


def load(**body: Any) -> Load:
    return load_of(CHAT.read(json.dumps({"messages": [{"role": "user", "content": "hello"}], **body}).encode()))


def test_what_is_asked_for_counts() -> None:
    assert load().output_tokens is None
    found = load(max_tokens=7, n=3, plugins=[{"id": "web", "max_results": 9}, {"id": "file-parser"}])
    assert (found.output_tokens, found.choices, found.searches, found.results, found.pages) == (7, 3, 1, 9, 1000)
    assert load(model="openai/gpt-4o:online").searches == 1
    assert load(tools=[{"type": "function", "function": {"name": "f"}}]).rounds == 1
    assert load(tools=[{"type": "openrouter:web_search", "parameters": {"max_uses": 3}}]).rounds == 4
    cached = [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral", "ttl": "1h"}}]
    assert load(messages=[{"role": "user", "content": cached}]).hour_cache


def test_images_are_counted_and_their_data_is_not_text() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 100_000}}
    found = load(messages=[{"role": "user", "content": [{"type": "text", "text": "what?"}, image, image]}])
    assert found.images == 2
    assert found.prompt_tokens < 1000


@pytest.mark.parametrize(
    "body",
    [
        {"service_tier": "priority"},
        {"tools": [{"type": "openrouter:web_search"}]},
        {"tools": [{"type": "openrouter:web_search", "max_uses": 1000}]},
        {"tools": "none"},
        {"plugins": {"id": "web"}},
    ],
)
def test_what_has_no_bound_is_refused(body: dict[str, Any]) -> None:
    with pytest.raises(BadRequest):
        load(**body)


def test_anthropic_tools() -> None:
    body = {
        "max_tokens": 5,
        "messages": [{"role": "user", "content": "x"}],
        "tools": [
            {"name": "f", "input_schema": {}},
            {"type": "web_search_20250305", "name": "web_search", "max_uses": 2},
        ],
    }
    assert load_of(MESSAGES.read(json.dumps(body).encode())).rounds == 3


def test_max_price() -> None:
    price = max_price_of({"max_price": {"prompt": "2", "completion": 10.5, "request": "0.01"}})
    assert price is not None
    assert price.prompt == 2 * FEMTO // 10**6
    assert price.completion == 105 * FEMTO // 10**7
    assert price.request == FEMTO // 100
    assert max_price_of({}) is None
    with pytest.raises(BadRequest):
        max_price_of({"max_price": {"prompt": "cheap"}})
