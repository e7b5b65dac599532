# SPDX-License-Identifier: GPL-3.0-or-later
"""`GET /generation`, `GET /credits`, `GET /activity`: what was used, as the vendor shows it afterwards."""

from __future__ import annotations

import uuid
from datetime import UTC, date, datetime, timedelta
from typing import Any

from .auth import any_key, management_key
from .errors import VendorError
from .inference import Platform
from .records import Generation
from .state import usd
from .wire import Exchange

__all__ = ["activity", "credit", "read"]

DAYS = 30
ACTIVITY_TOKENS = ("prompt_tokens", "completion_tokens", "reasoning_tokens", "cached_tokens")


async def read(platform: Platform, exchange: Exchange) -> None:
    """`GET /generation?id=`: 404 for a short time after the answer has ended (`Config.generation_delay`)."""
    state = platform.state
    any_key(state, exchange)
    wanted = exchange.parameters().get("id")
    if not wanted:
        raise VendorError(400, "id is required")
    found = state.account.by_id.get(wanted)
    if found is None or state.clock() < found.ended_at + state.config.generation_delay:
        raise VendorError(404, f"Generation {wanted} not found")
    await exchange.reply({"data": view(platform, found)})


async def credit(platform: Platform, exchange: Exchange) -> None:
    """`GET /credits`."""
    state = platform.state
    management_key(state, exchange)
    await exchange.reply({"data": {"total_credits": usd(state.credits), "total_usage": usd(state.account.totals.cost)}})


async def activity(platform: Platform, exchange: Exchange) -> None:
    """`GET /activity`: sums by day and endpoint over the last thirty completed UTC days."""
    state = platform.state
    management_key(state, exchange)
    parameters = exchange.parameters()
    today = datetime.fromtimestamp(state.clock(), tz=UTC).date()
    days = _days(parameters.get("date"), today)
    wanted_key = parameters.get("api_key_hash")
    if wanted_key is not None and wanted_key not in state.account.keys:
        raise VendorError(404, "API key not found")
    by_workspace = parameters.get("group_by") == "workspace"
    rows: dict[tuple[str, ...], dict[str, Any]] = {}
    for item in state.account.generations:
        day = datetime.fromtimestamp(item.ended_at, tz=UTC).date()
        if day not in days or (wanted_key is not None and item.key_hash != wanted_key):
            continue
        workspace = item.workspace_id or ""
        if parameters.get("workspace_id", workspace) != workspace:
            continue
        place = (day.isoformat(), item.model, item.provider, workspace if by_workspace else "")
        row = rows.get(place)
        if row is None:
            row = rows[place] = _row(platform, place)
        row["requests"] += 1
        row["usage"] += item.cost
        for name in ACTIVITY_TOKENS:
            row[name] += getattr(item, name)
    data = [{**row, "usage": usd(row["usage"])} for _, row in sorted(rows.items(), reverse=True)]
    await exchange.reply({"data": data})


def view(platform: Platform, item: Generation) -> dict[str, Any]:
    """The `data` of GenerationResponse; durations in milliseconds."""
    endpoint_model = platform.catalogue.models[item.model]
    response = {
        "id": f"chatcmpl-{item.id.rpartition('-')[2]}",
        "endpoint_id": endpoint_id(item.model, item.provider),
        "model_permaslug": endpoint_model.entry.canonical_slug,
        "provider_name": item.provider,
        "status": 200,
        "latency": round(item.latency * 1000),
        "is_byok": False,
    }
    failed = [
        {"provider_name": each["provider"], "model_permaslug": each["model"], "status": each["status"]}
        for each in item.attempts or ()
    ]
    return {
        "id": item.id,
        "upstream_id": response["id"],
        "request_id": item.request_id,
        "model": item.model,
        "provider_name": item.provider,
        "provider_responses": [*failed, response],
        "router": item.router,
        "api_type": item.api_type,
        "created_at": datetime.fromtimestamp(item.created_at, tz=UTC).isoformat(timespec="milliseconds"),
        "streamed": item.streamed,
        "cancelled": item.cancelled,
        "finish_reason": item.finish_reason,
        "native_finish_reason": item.finish_reason,
        "tokens_prompt": item.prompt_tokens,
        "tokens_completion": item.completion_tokens,
        "native_tokens_prompt": item.prompt_tokens,
        "native_tokens_completion": item.completion_tokens,
        "native_tokens_cached": item.cached_tokens,
        "native_tokens_reasoning": item.reasoning_tokens,
        "native_tokens_completion_images": 0,
        "num_media_prompt": item.images,
        "num_media_completion": 0,
        "num_input_audio_prompt": 0,
        "num_search_results": 0,
        "num_fetches": 0,
        "web_search_engine": None,
        "total_cost": usd(item.cost),
        "usage": usd(item.cost),
        "upstream_inference_cost": None,
        "cache_discount": usd(item.cache_discount) if item.cached_tokens or item.cache_write_tokens else None,
        "is_byok": False,
        "latency": round(item.latency * 1000),
        "generation_time": round((item.ended_at - item.created_at) * 1000),
        "moderation_latency": None,
        "origin": item.http_referer or "",
        "http_referer": item.http_referer,
        "user_agent": item.user_agent,
        "app_id": None,
        "preset_id": None,
        "external_user": item.user,
        "session_id": item.session_id,
        "service_tier": None,
        "data_region": "global",
        "workspace_id": item.workspace_id,
        "response_cache_source_id": None,
    }


def endpoint_id(model: str, provider: str) -> str:
    """The UUID of an endpoint, always the same."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"https://openrouter.ai/{model}/{provider}"))


def _days(wanted: str | None, today: date) -> set[date]:
    days = {today - timedelta(days=back) for back in range(1, DAYS + 1)}
    if wanted is None:
        return days
    try:
        day = date.fromisoformat(wanted)
    except ValueError:
        raise VendorError(400, "date must be YYYY-MM-DD") from None
    if day not in days:
        raise VendorError(400, f"date must be within the last {DAYS} completed UTC days")
    return {day}


def _row(platform: Platform, place: tuple[str, ...]) -> dict[str, Any]:
    day, model, provider, workspace = place
    row: dict[str, Any] = {
        "date": day,
        "model": model,
        "model_permaslug": platform.catalogue.models[model].entry.canonical_slug,
        "endpoint_id": endpoint_id(model, provider),
        "provider_name": provider,
        "usage": 0,
        "byok_usage_inference": 0,
        "requests": 0,
    }
    row |= dict.fromkeys(ACTIVITY_TOKENS, 0)
    if workspace:
        row["workspace_id"] = workspace
    return row
