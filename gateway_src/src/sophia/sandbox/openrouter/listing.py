# SPDX-License-Identifier: GPL-3.0-or-later
"""`/models`, their endpoints, `/providers`: what the catalogue shows (schemas Model, PublicEndpoint)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from decimal import Decimal, InvalidOperation
from typing import Any
from urllib.parse import urlencode

from . import bodies
from .auth import any_key
from .catalogue import Endpoint, Model
from .errors import VendorError
from .inference import Platform
from .routing import visible
from .wire import Exchange

__all__ = ["count", "embedding_models", "endpoints", "model", "models", "models_of_key", "providers", "zdr_endpoints"]

MILLION = Decimal(1_000_000)


async def models(platform: Platform, exchange: Exchange) -> None:
    """`GET /models`. Needs no key."""
    parameters = exchange.parameters()
    found = _filtered(platform, parameters)
    await _send_page(exchange, "/api/v1/models", found, parameters)


async def models_of_key(platform: Platform, exchange: Exchange) -> None:
    """`GET /models/user`: only what the key's guardrail lets it use."""
    key = any_key(platform.state, exchange)
    guardrail = platform.state.guardrail_of(key.hash)
    found = [item for item in platform.catalogue.models.values() if not item.is_embedding and visible(item, guardrail)]
    await _send_page(exchange, "/api/v1/models/user", found, exchange.parameters())


async def embedding_models(platform: Platform, exchange: Exchange) -> None:
    """`GET /embeddings/models`."""
    found = [item for item in platform.catalogue.models.values() if item.is_embedding]
    await _send_page(exchange, "/api/v1/embeddings/models", found, exchange.parameters())


async def count(platform: Platform, exchange: Exchange) -> None:
    """`GET /models/count`."""
    await exchange.reply({"data": {"count": len(_filtered(platform, exchange.parameters()))}})


async def model(platform: Platform, exchange: Exchange, slug: str) -> None:
    """`GET /model/{author}/{slug}`."""
    await exchange.reply({"data": view(_find(platform, slug))})


async def endpoints(platform: Platform, exchange: Exchange, slug: str) -> None:
    """`GET /models/{author}/{slug}/endpoints`."""
    found = _find(platform, slug)
    shown = view(found)
    data = {name: shown[name] for name in ("id", "name", "created", "description", "architecture")}
    known = exchange.header(b"authorization") is not None
    data["endpoints"] = [endpoint_view(found, item, measured=known) for item in found.endpoints]
    await exchange.reply({"data": data})


async def zdr_endpoints(platform: Platform, exchange: Exchange) -> None:
    """`GET /endpoints/zdr`: those that keep nothing."""
    data = [
        endpoint_view(item, endpoint, measured=True)
        for item in platform.catalogue.models.values()
        for endpoint in item.endpoints
        if endpoint.provider.zdr
    ]
    await exchange.reply({"data": data})


async def providers(platform: Platform, exchange: Exchange) -> None:
    """`GET /providers`."""
    data = [
        {
            "name": provider.name,
            "slug": provider.slug,
            "privacy_policy_url": f"https://{provider.slug}.example/privacy",
            "terms_of_service_url": f"https://{provider.slug}.example/terms",
            "status_page_url": None,
            "headquarters": provider.headquarters,
            "datacenters": provider.datacenters,
        }
        for provider in platform.catalogue.providers.values()
    ]
    await exchange.reply({"data": data})


def view(item: Model) -> dict[str, Any]:
    """Model."""
    entry = item.entry
    shown: dict[str, Any] = {
        "id": entry.id,
        "canonical_slug": entry.canonical_slug,
        "hugging_face_id": entry.hugging_face_id,
        "name": entry.name,
        "created": entry.created,
        "description": entry.description,
        "context_length": entry.context_length,
        "architecture": {
            "modality": f"{'+'.join(entry.input_modalities)}->{'+'.join(entry.output_modalities)}",
            "input_modalities": entry.input_modalities,
            "output_modalities": entry.output_modalities,
            "tokenizer": entry.tokenizer,
            "instruct_type": entry.instruct_type,
        },
        "pricing": entry.pricing,
        "top_provider": {
            "context_length": entry.context_length,
            "max_completion_tokens": entry.max_completion_tokens,
            "is_moderated": entry.is_moderated,
        },
        "per_request_limits": None,
        "supported_parameters": entry.supported_parameters,
        "supported_voices": None,
        "default_parameters": {"temperature": None, "top_p": None, "frequency_penalty": None},
        "expiration_date": entry.expiration_date,
        "knowledge_cutoff": entry.knowledge_cutoff,
        "links": {"details": f"/api/v1/models/{entry.canonical_slug}/endpoints"},
    }
    if entry.reasoning is not None:
        shown["reasoning"] = entry.reasoning
    return shown


def endpoint_view(item: Model, endpoint: Endpoint, *, measured: bool) -> dict[str, Any]:
    """PublicEndpoint; latency and throughput are null for those who do not say who they are."""
    entry = item.entry
    tools = "tools" in entry.supported_parameters
    return {
        "name": f"{endpoint.provider.name} | {entry.canonical_slug}",
        "model_id": entry.id,
        "model_name": entry.name,
        "provider_name": endpoint.provider.name,
        "tag": endpoint.tag,
        "context_length": entry.context_length,
        "pricing": endpoint.pricing,
        "quantization": endpoint.quantization,
        "max_completion_tokens": None if item.is_embedding else endpoint.max_completion_tokens,
        "max_prompt_tokens": None,
        "supported_parameters": entry.supported_parameters,
        "status": 0,
        "uptime_last_5m": 100.0,
        "uptime_last_30m": 99.9,
        "uptime_last_1d": 99.8,
        "supports_implicit_caching": entry.pricing.input_cache_read is not None
        and entry.pricing.input_cache_write is None,
        "supports_voice_cloning": False,
        "latency_last_30m": _percentiles(endpoint.ttft * 1000, (1, 1.4, 2, 4)) if measured else None,
        "throughput_last_30m": _percentiles(endpoint.tokens_per_second, (1, 0.8, 0.6, 0.3)) if measured else None,
        "native_tools": {},
        "service_tier": None,
        "supports_diarization": False,
        "supports_tool_choice": {"auto": tools, "function": tools, "none": tools, "required": tools},
    }


def _find(platform: Platform, slug: str) -> Model:
    found = platform.catalogue.find(slug)
    if found is None:
        raise VendorError(404, f"Model {slug} not found")
    return found


def _filtered(platform: Platform, parameters: dict[str, str]) -> list[Model]:
    found: Iterable[Model] = platform.catalogue.models.values()
    wanted = parameters.get("output_modalities", "text")
    if wanted != "all":
        found = [item for item in found if not set(wanted.split(",")).isdisjoint(item.entry.output_modalities)]
    for name, test in FILTERS.items():
        value = parameters.get(name)
        if value:
            found = [item for item in found if test(item, value)]
    ordered = list(found)
    sort = SORTS.get(parameters.get("sort", ""))
    if sort is not None:
        ordered.sort(key=sort)
    return ordered


async def _send_page(exchange: Exchange, path: str, found: list[Model], parameters: dict[str, str]) -> None:
    window = bodies.page(parameters, len(found) or 1, 1000) if parameters.keys() & {"offset", "limit"} else slice(None)
    if "offset" in parameters and "limit" not in parameters:
        window = bodies.page(parameters, 500, 1000)
    following = None
    if window.stop is not None and window.stop < len(found):
        rest = {**parameters, "offset": str(window.stop), "limit": str(window.stop - window.start)}
        following = f"{path}?{urlencode(rest)}"
    data = [view(item) for item in found[window]]
    await exchange.reply({"data": data, "total_count": len(found), "links": {"next": following}})


def _percentiles(middle: float, factors: tuple[float, float, float, float]) -> dict[str, float]:
    return {name: middle * factor for name, factor in zip(("p50", "p75", "p90", "p99"), factors, strict=True)}


def _number(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        raise VendorError(400, f"{text} is no number") from None


def _prompt_price(item: Model) -> Decimal:
    return Decimal(item.entry.pricing.prompt) * MILLION


def _completion_price(item: Model) -> Decimal:
    return Decimal(item.entry.pricing.completion) * MILLION


def _matches(item: Model, text: str) -> bool:
    return text.lower() in f"{item.id} {item.entry.name}".lower()


FILTERS: dict[str, Callable[[Model, str], bool]] = {
    "q": _matches,
    "supported_parameters": lambda item, text: set(text.split(",")) <= set(item.entry.supported_parameters),
    "input_modalities": lambda item, text: set(text.split(",")) <= set(item.entry.input_modalities),
    "context": lambda item, text: item.entry.context_length >= _number(text),
    "min_price": lambda item, text: _prompt_price(item) >= _number(text),
    "max_price": lambda item, text: _prompt_price(item) <= _number(text),
    "min_output_price": lambda item, text: _completion_price(item) >= _number(text),
    "max_output_price": lambda item, text: _completion_price(item) <= _number(text),
    "model_authors": lambda item, text: item.id.partition("/")[0] in text.split(","),
    "providers": lambda item, text: any(
        not {endpoint.provider.slug, endpoint.provider.name}.isdisjoint(text.split(",")) for endpoint in item.endpoints
    ),
    "zdr": lambda item, text: text != "true" or any(endpoint.provider.zdr for endpoint in item.endpoints),
}
SORTS: dict[str, Callable[[Model], Any]] = {
    "newest": lambda item: -item.entry.created,
    "pricing-low-to-high": _prompt_price,
    "pricing-high-to-low": lambda item: -_prompt_price(item),
    "context-high-to-low": lambda item: -item.entry.context_length,
    "throughput-high-to-low": lambda item: -max((each.tokens_per_second for each in item.endpoints), default=0),
    "latency-low-to-high": lambda item: min((each.ttft for each in item.endpoints), default=0),
}
