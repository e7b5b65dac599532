# SPDX-License-Identifier: GPL-3.0-or-later
"""What a request may use at most, read from what it asks for: the reservation's bound rests on this.

What cannot be bounded is refused rather than guessed: dearer service tiers, and server tools without `max_uses`.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import msgspec

from sophia.errors import BadRequest
from sophia.gateway.dialects import Call
from sophia.gateway.prices import Load, MaxPrice, PriceError, prompt_bound, rate

__all__ = ["load_of", "max_price_of"]

_PAGES = 1000
_PLAIN_TIERS = frozenset({b'"auto"', b'"default"', b'"flex"', b"null"})
_CACHED = ("messages", "input", "tools", "system", "instructions", "cache_control")
_TOOL_TYPES = frozenset({"function", "custom", ""})


class _Plugin(msgspec.Struct):
    id: str = ""
    max_results: int = 5


class _Tool(msgspec.Struct):
    type: str = "custom"  # Anthropic's own tools may leave it out
    max_uses: int | None = None
    parameters: dict[str, Any] | None = None


_PLUGINS = msgspec.json.Decoder(list[_Plugin])
_TOOLS = msgspec.json.Decoder(list[_Tool])


def load_of(call: Call) -> Load:
    """The request's bound; its output is left open where the client does not limit it.

    Raises:
        BadRequest: something that it asks for cannot be bounded.
    """
    fields = call.fields
    tier = fields.get("service_tier")
    if tier is not None and bytes(tier) not in _PLAIN_TIERS:
        raise BadRequest(
            "unsupported_parameter",
            "service_tier: only auto, default and flex; others are dearer than listed",
            param="service_tier",
        )
    searches, results, pages = _plugins(call)
    uses = _server_tools(fields)
    return Load(
        prompt_tokens=prompt_bound(call.prompt_bytes, len(call.turns), call.tool_bytes),
        output_tokens=call.max_output,
        choices=call.choices,
        images=call.images,
        searches=searches + uses,
        results=results,
        pages=pages,
        rounds=uses + 1,
        hour_cache=any(b'"1h"' in bytes(fields[name]) for name in _CACHED if name in fields),
    )


def _plugins(call: Call) -> tuple[int, int, int]:
    """Searches, results per search and pages that the request's plugins may bill."""
    raw = call.fields.get("plugins")
    if raw is None or bytes(raw) == b"null":
        online = "web_search_options" in call.fields or call.model.endswith(":online")
        return (1 if online else 0), 5, 0
    try:
        plugins = _PLUGINS.decode(raw)
    except msgspec.MsgspecError as error:
        raise BadRequest("invalid_value", f"plugins: {error}", param="plugins") from error
    web = [plugin for plugin in plugins if plugin.id in ("web", "web-fetch")]
    files = any(plugin.id == "file-parser" for plugin in plugins)
    return len(web), max((plugin.max_results for plugin in web), default=5), _PAGES if files else 0


def _server_tools(fields: Mapping[str, msgspec.Raw]) -> int:
    """How often tools that run upstream may be used; each use sends the prompt again."""
    raw = fields.get("tools")
    if raw is None or bytes(raw) == b"null":
        return 0
    try:
        tools = _TOOLS.decode(raw)
    except msgspec.MsgspecError as error:
        raise BadRequest("invalid_value", f"tools: {error}", param="tools") from error
    uses = 0
    for tool in tools:
        if tool.type in _TOOL_TYPES:
            continue
        most = tool.max_uses if tool.max_uses is not None else (tool.parameters or {}).get("max_uses")
        if not isinstance(most, int) or not 0 < most <= 100:
            raise BadRequest(
                "unsupported_parameter",
                f"tools: {tool.type} runs upstream and needs max_uses (1 to 100), so that its cost has a bound",
                param="tools",
            )
        uses += most
    return uses


def max_price_of(provider: Mapping[str, Any]) -> MaxPrice | None:
    """The request's own `provider.max_price`: USD per million tokens; per request and per image in USD.

    Raises:
        BadRequest: a price that is none.
    """
    asked = provider.get("max_price")
    if not isinstance(asked, Mapping):
        return None
    try:
        return MaxPrice(
            *(None if asked.get(name) is None else _per_token(asked[name]) for name in ("prompt", "completion")),
            *(None if asked.get(name) is None else rate(asked[name]) for name in ("request", "image")),
        )
    except PriceError as error:
        raise BadRequest("invalid_value", f"provider.max_price: {error}", param="provider") from error


def _per_token(value: Any) -> int:
    return rate(Decimal(rate(value)).scaleb(-21))
