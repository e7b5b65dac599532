# SPDX-License-Identifier: GPL-3.0-or-later
"""`GET /analytics/meta` and `POST /analytics/query`: metrics over the kept generations, grouped and filtered."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import msgspec

from . import bodies
from .auth import management_key
from .errors import VendorError
from .inference import Platform
from .records import Generation, iso
from .state import usd
from .wire import Exchange

__all__ = ["meta", "query"]

DEFAULT_LIMIT = 1000
MOST = 10_000
DEFAULT_RANGE = 30 * 86_400.0


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """A condition on a dimension."""

    field: str
    operator: Literal["eq", "neq", "in", "not_in", "gt", "gte", "lt", "lte"]
    value: str | float | list[str | float]
    include_unset: bool = False


class TimeRange(msgspec.Struct, frozen=True, kw_only=True):
    """From `start` on, before `end`."""

    start: str
    end: str


class OrderBy(msgspec.Struct, frozen=True, kw_only=True):
    """What rows are sorted by."""

    field: str
    direction: Literal["asc", "desc"]


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """The body of queryAnalytics."""

    metrics: list[str]
    dimensions: list[str] = []
    filters: list[Filter] = []
    granularity: Literal["minute", "hour", "day", "week", "month"] | None = None
    group_limit: int | None = None
    limit: int | None = None
    order_by: OrderBy | None = None
    time_range: TimeRange | None = None


Metric = tuple[str, str, bool, Callable[[Generation], int | float]]
METRICS: dict[str, Metric] = {
    "request_count": ("Request Count", "number", False, lambda item: 1),
    "total_usage": ("Total Usage", "currency", False, lambda item: item.cost),
    "tokens_prompt": ("Prompt Tokens", "number", False, lambda item: item.prompt_tokens),
    "tokens_completion": ("Completion Tokens", "number", False, lambda item: item.completion_tokens),
    "tokens_total": ("Total Tokens", "number", False, lambda item: item.prompt_tokens + item.completion_tokens),
    "tokens_reasoning": ("Reasoning Tokens", "number", False, lambda item: item.reasoning_tokens),
    "tokens_cached": ("Cached Tokens", "number", False, lambda item: item.cached_tokens),
    "cancelled_count": ("Cancelled Requests", "number", False, lambda item: int(item.cancelled)),
    "avg_latency": ("Average Latency", "latency", True, lambda item: item.latency * 1000),
    "avg_generation_time": (
        "Average Generation Time",
        "latency",
        True,
        lambda item: (item.ended_at - item.created_at) * 1000,
    ),
}
Dimension = tuple[str, Callable[[Generation], Any]]
DIMENSIONS: dict[str, Dimension] = {
    "model": ("Model", lambda item: item.model),
    "api_key_id": ("API Key", lambda item: item.key_hash),
    "generation_id": ("Generation", lambda item: item.id),
    "external_user": ("External User", lambda item: item.user),
    "provider": ("Provider", lambda item: item.provider),
    "session_id": ("Session", lambda item: item.session_id),
    "workspace": ("Workspace", lambda item: item.workspace_id),
    "finish_reason": ("Finish Reason", lambda item: item.finish_reason),
    "user_agent": ("User Agent", lambda item: item.user_agent),
}
OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "eq": lambda left, right: left == right,
    "neq": lambda left, right: left != right,
    "in": lambda left, right: left in right,
    "not_in": lambda left, right: left not in right,
    "gt": lambda left, right: left is not None and left > right,
    "gte": lambda left, right: left is not None and left >= right,
    "lt": lambda left, right: left is not None and left < right,
    "lte": lambda left, right: left is not None and left <= right,
}
GRANULARITIES = {"minute": "Minute", "hour": "Hour", "day": "Day", "week": "Week", "month": "Month"}


async def meta(platform: Platform, exchange: Exchange) -> None:
    """`GET /analytics/meta`."""
    management_key(platform.state, exchange)
    data = {
        "metrics": [
            {"name": name, "display_label": label, "display_format": form, "is_rate": rate}
            for name, (label, form, rate, _) in METRICS.items()
        ],
        "dimensions": [{"name": name, "display_label": label} for name, (label, _) in DIMENSIONS.items()],
        "operators": [{"name": name, "value_type": "array" if "in" in name else "scalar"} for name in OPERATORS],
        "granularities": [{"name": name, "display_label": label} for name, label in GRANULARITIES.items()],
    }
    await exchange.reply({"data": data})


async def query(platform: Platform, exchange: Exchange) -> None:
    """`POST /analytics/query`."""
    state = platform.state
    management_key(state, exchange)
    asked = await bodies.read(exchange, Query, state.config.max_body)
    _check(asked)
    began = time.perf_counter()
    start, end = _range(asked, state.clock())
    rows = _rows(platform, asked, start, end)
    _sort(rows, asked)
    rows = _group_limited(rows, asked)
    limit = min(DEFAULT_LIMIT if asked.limit is None else asked.limit, MOST)
    shown = [_shown(platform, row) for row in rows[:limit]]
    data: dict[str, Any] = {
        "data": shown,
        "metadata": {
            "query_time_ms": round((time.perf_counter() - began) * 1000, 3),
            "row_count": len(shown),
            "truncated": len(rows) > limit,
        },
    }
    warnings = _warnings(platform, asked)
    if warnings:
        data["warnings"] = warnings
    await exchange.reply({"data": data})


def _check(asked: Query) -> None:
    if not asked.metrics:
        raise VendorError(400, "metrics must not be empty")
    if len(asked.dimensions) > 2:
        raise VendorError(400, "dimensions: at most 2")
    if len(asked.filters) > 20:
        raise VendorError(400, "filters: at most 20")
    if asked.limit is not None and not 1 <= asked.limit <= MOST:
        raise VendorError(400, f"limit must be between 1 and {MOST}")
    for name in asked.metrics:
        if name not in METRICS:
            raise VendorError(400, f"Unknown metric: {name}")
    for name in [*asked.dimensions, *(item.field for item in asked.filters)]:
        if name not in DIMENSIONS:
            raise VendorError(400, f"Unknown dimension: {name}")
    for item in asked.filters:
        if isinstance(item.value, list) != (item.operator in ("in", "not_in")):
            raise VendorError(
                400, f"operator {item.operator} takes {'an array' if 'in' in item.operator else 'a scalar'}"
            )
    known = {"date", "request_count", *asked.metrics, *asked.dimensions}
    if asked.order_by is not None and asked.order_by.field not in known:
        raise VendorError(400, f"order_by.field {asked.order_by.field} was not requested")


def _range(asked: Query, now: float) -> tuple[float, float]:
    if asked.time_range is None:
        return now - DEFAULT_RANGE, float("inf")
    try:
        start = datetime.fromisoformat(asked.time_range.start)
        end = datetime.fromisoformat(asked.time_range.end)
    except ValueError as error:
        raise VendorError(400, f"time_range: {error}") from error
    return _epoch(start), _epoch(end)


def _epoch(moment: datetime) -> float:
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()


def _rows(platform: Platform, asked: Query, start: float, end: float) -> list[dict[str, Any]]:
    """Rows with sums in them; `_counted` is how many generations are in each."""
    getters = [(name, DIMENSIONS[name][1]) for name in asked.dimensions]
    tests = [(DIMENSIONS[item.field][1], item) for item in asked.filters]
    groups: dict[tuple[Any, ...], dict[str, Any]] = {}
    for item in platform.state.account.generations:
        if not start <= item.ended_at < end or not all(_passes(getter(item), test) for getter, test in tests):
            continue
        bucket = None if asked.granularity is None else _bucket(item.ended_at, asked.granularity)
        place = (bucket, *(getter(item) for _, getter in getters))
        row = groups.get(place)
        if row is None:
            row = groups[place] = {"_counted": 0, **dict.fromkeys(asked.metrics, 0)}
            if bucket is not None:
                row[f"date__{asked.granularity}"] = bucket
            row.update((name, value) for (name, _), value in zip(getters, place[1:], strict=True))
        row["_counted"] += 1
        for name in asked.metrics:
            row[name] += METRICS[name][3](item)
    if not groups and not asked.dimensions and asked.granularity is None:
        return [{"_counted": 0, **dict.fromkeys(asked.metrics, 0)}]
    return list(groups.values())


def _passes(value: Any, test: Filter) -> bool:
    if value is None:
        return test.include_unset and test.operator in ("in", "not_in")
    return OPERATORS[test.operator](value, test.value)


def _bucket(moment: float, granularity: str) -> str:
    at = datetime.fromtimestamp(moment, tz=UTC).replace(second=0, microsecond=0)
    if granularity != "minute":
        at = at.replace(minute=0)
    if granularity not in ("minute", "hour"):
        at = at.replace(hour=0)
    if granularity == "week":
        at -= timedelta(days=at.weekday())
    elif granularity == "month":
        at = at.replace(day=1)
    return iso(at.timestamp())


def _sort(rows: list[dict[str, Any]], asked: Query) -> None:
    field = asked.order_by.field if asked.order_by is not None else asked.metrics[0]
    downwards = asked.order_by is None or asked.order_by.direction == "desc"
    name = {"date": f"date__{asked.granularity}"}.get(field, field)
    if field == "request_count" and field not in asked.metrics:
        name = "_counted"
    rows.sort(key=lambda row: (row.get(name) is not None, row.get(name)), reverse=downwards)


def _group_limited(rows: list[dict[str, Any]], asked: Query) -> list[dict[str, Any]]:
    if asked.group_limit is None or not asked.dimensions:
        return rows
    seen: dict[tuple[Any, ...], int] = {}
    kept = []
    for row in rows:
        place = tuple(row[name] for name in asked.dimensions)
        seen[place] = seen.get(place, 0) + 1
        if seen[place] <= asked.group_limit:
            kept.append(row)
    return kept


def _shown(platform: Platform, row: dict[str, Any]) -> dict[str, Any]:
    """A row as it goes out: rates divided, money in USD, keys by their names."""
    counted = row["_counted"]
    shown = {name: value for name, value in row.items() if name != "_counted"}
    for name, (_, form, rate, _) in METRICS.items():
        if name in shown:
            if form == "currency":
                shown[name] = usd(shown[name])
            elif rate:
                shown[name] = shown[name] / counted if counted else 0
    if "api_key_id" in shown:
        key = platform.state.account.keys.get(shown["api_key_id"])
        shown["api_key_id"] = shown["api_key_id"] if key is None else key.name
    return shown


def _warnings(platform: Platform, asked: Query) -> list[str]:
    known = platform.state.account.keys.keys() | platform.state.account.tallies.keys()
    warnings = []
    for item in asked.filters:
        if item.field == "api_key_id":
            values = item.value if isinstance(item.value, list) else [item.value]
            warnings += [f"api_key_id {value} could not be resolved" for value in values if value not in known]
    return warnings
