# SPDX-License-Identifier: GPL-3.0-or-later
"""`/keys` and `/key` (docs: "Management API keys", "API key rotation"; operations list, createKeys, updateKeys, …)."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from sophia.money import nano

from . import bodies
from .auth import any_key, management_key
from .errors import VendorError
from .inference import Platform
from .records import Key, KeyDeleted, iso
from .state import DEFAULT_WORKSPACE, State, usd
from .wire import Exchange

__all__ = ["create", "current", "delete", "listed", "read", "update"]

PAGE = 100
EXPIRY = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|\+00:00)")
Window = Literal["daily", "weekly", "monthly"]


class External(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A partner's end user, perhaps with a key that the partner made."""

    user: str
    api_key: str | None = None


class CreateKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of createKeys. `disabled` and `label` are not among it: a key cannot be made disabled."""

    name: str
    limit: Decimal | None = None
    limit_reset: Window | None = None
    include_byok_in_limit: bool = False
    expires_at: str | None = None
    workspace_id: str | None = None
    creator_user_id: str | None = None
    external: External | None = None


class UpdateKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of updateKeys. `expires_at` is not among it: an expiry never changes."""

    name: str | UnsetType = UNSET
    disabled: bool | UnsetType = UNSET
    limit: Decimal | UnsetType | None = UNSET
    limit_reset: Window | UnsetType | None = UNSET
    include_byok_in_limit: bool | UnsetType = UNSET
    workspace_id: str | UnsetType = UNSET


async def listed(platform: Platform, exchange: Exchange) -> None:
    """`GET /keys`: the newest hundred from `offset` on; no total, no next link."""
    state = platform.state
    management_key(state, exchange)
    parameters = exchange.parameters()
    offset = bodies.whole(parameters, "offset", 0, 0, 1 << 31)
    disabled, expired = bodies.flag(parameters, "include_disabled"), bodies.flag(parameters, "include_expired")
    workspace = parameters.get("workspace_id", DEFAULT_WORKSPACE)
    now = state.clock()
    found = [
        key
        for key in reversed(state.account.keys.values())
        if key.workspace_id == workspace
        and not key.management
        and (disabled or not key.disabled)
        and (expired or key.expires is None or now < key.expires)
    ]
    await exchange.reply({"data": [view(state, key) for key in found[offset : offset + PAGE]]})


async def create(platform: Platform, exchange: Exchange) -> None:
    """`POST /keys`: 201 with the secret, which no other answer shows. Not idempotent; names need not differ."""
    state = platform.state
    maker = management_key(state, exchange)
    body = await bodies.read(exchange, CreateKey, state.config.max_body)
    _check(state, body.name, body.limit, body.workspace_id)
    secret = state.secret()
    if body.external is not None and body.external.api_key is not None:
        if len(body.external.api_key) < 32:
            raise VendorError(400, "external.api_key must have at least 32 characters")
        secret = body.external.api_key
    key = state.add_key(
        secret,
        name=body.name,
        limit=None if body.limit is None else nano(body.limit),
        limit_reset=body.limit_reset,
        include_byok_in_limit=body.include_byok_in_limit,
        expires_at=body.expires_at,
        expires=None if body.expires_at is None else expiry(body.expires_at),
        workspace_id=body.workspace_id or DEFAULT_WORKSPACE,
        creator_user_id=body.creator_user_id or maker.creator_user_id,
        external_user=None if body.external is None else body.external.user,
    )
    await exchange.reply({"data": view(state, key), "key": secret}, 201)


async def read(platform: Platform, exchange: Exchange, key_hash: str) -> None:
    """`GET /keys/{hash}`."""
    management_key(platform.state, exchange)
    await exchange.reply({"data": view(platform.state, _find(platform.state, key_hash))})


async def update(platform: Platform, exchange: Exchange, key_hash: str) -> None:
    """`PATCH /keys/{hash}`: only the fields that were sent."""
    state = platform.state
    management_key(state, exchange)
    key = _find(state, key_hash)
    body = await bodies.read(exchange, UpdateKey, state.config.max_body)
    limit = None if body.limit is UNSET else body.limit
    workspace = None if body.workspace_id is UNSET else body.workspace_id
    _check(state, key.name if body.name is UNSET else body.name, limit, workspace)
    changes: dict[str, Any] = {
        name: value
        for name in ("name", "disabled", "limit_reset", "include_byok_in_limit", "workspace_id")
        if (value := getattr(body, name)) is not UNSET
    }
    if body.limit is not UNSET:
        changes["limit"] = None if body.limit is None else nano(body.limit)
    changed = msgspec.structs.replace(key, updated_at=state.clock(), **changes)
    state.record(changed)
    await exchange.reply({"data": view(state, changed)})


async def delete(platform: Platform, exchange: Exchange, key_hash: str) -> None:
    """`DELETE /keys/{hash}`: 404 when it is gone already."""
    management_key(platform.state, exchange)
    platform.state.record(KeyDeleted(_find(platform.state, key_hash).hash))
    await exchange.reply({"deleted": True})


async def current(platform: Platform, exchange: Exchange) -> None:
    """`GET /key`: about the key that asks."""
    state = platform.state
    key = any_key(state, exchange)
    now = state.clock()
    usages = _usages(state, key)
    budgets = _budgets(state, key, now)
    limit = state.config.free_rpm
    minute, used = state.account.minutes.get("free", (0, 0))
    used = used if minute == int(now // 60) else 0
    data = {
        "label": key.label,
        "limit": _money(key.limit),
        "limit_remaining": _money(state.remaining(key)),
        "limit_reset": key.limit_reset,
        "include_byok_in_limit": key.include_byok_in_limit,
        **usages,
        "is_free_tier": False,
        "is_management_key": key.management,
        "is_provisioning_key": key.management,
        "creator_user_id": key.creator_user_id,
        "expires_at": key.expires_at,
        "workspace_id": key.workspace_id,
        "organization_id": None,
        "allowed_data_regions": ["global"],
        "budgets": budgets,
        "effective_budget": min(budgets, key=lambda budget: Decimal(budget["remaining_usd"]), default=None),
        "free_model_daily_requests": {"limit": limit, "remaining": max(limit - used, 0), "used": used},
        "rate_limit": {"requests": -1, "interval": "10s", "note": "This field is deprecated and safe to ignore."},
    }
    await exchange.reply({"data": data})


def view(state: State, key: Key) -> dict[str, Any]:
    """A key as `/keys` shows it."""
    return {
        "hash": key.hash,
        "name": key.name,
        "label": key.label,
        "disabled": key.disabled,
        "limit": _money(key.limit),
        "limit_remaining": _money(state.remaining(key)),
        "limit_reset": key.limit_reset,
        "include_byok_in_limit": key.include_byok_in_limit,
        **_usages(state, key),
        "created_at": iso(key.created_at),
        "updated_at": None if key.updated_at is None else iso(key.updated_at),
        "last_used_at": None if key.last_used_at is None else iso(key.last_used_at),
        "expires_at": key.expires_at,
        "creator_user_id": key.creator_user_id,
        "external_user": key.external_user,
        "workspace_id": key.workspace_id,
    }


def expiry(text: str) -> float:
    """Seconds since the epoch of an expiry. Raises `VendorError` 400 unless it is UTC with seconds."""
    if EXPIRY.fullmatch(text) is None:
        raise VendorError(400, "expires_at must be an ISO 8601 timestamp in UTC with seconds: YYYY-MM-DDTHH:MM:SSZ")
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError as error:
        raise VendorError(400, f"expires_at: {error}") from error


def window_end(reset: str | None, now: float) -> str | None:
    """When a limit's window ends: the next UTC midnight, Monday or first of the month."""
    midnight = datetime.fromtimestamp(now, tz=UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    match reset:
        case "daily":
            end = midnight + timedelta(days=1)
        case "weekly":
            end = midnight + timedelta(days=7 - midnight.weekday())
        case "monthly":
            end = (midnight.replace(day=1) + timedelta(days=32)).replace(day=1)
        case _:
            return None
    return iso(end.timestamp())


def _find(state: State, key_hash: str) -> Key:
    key = state.account.keys.get(key_hash)
    if key is None or key.management:
        raise VendorError(404, "API key not found")
    return key


def _check(state: State, name: str, limit: Decimal | None, workspace: str | None) -> None:
    if not name:
        raise VendorError(400, "name must not be empty")
    if limit is not None and (limit < 0 or not limit.is_finite()):
        raise VendorError(400, "limit must not be negative")
    if workspace is not None and workspace not in state.account.workspaces:
        raise VendorError(400, "workspace_id names no workspace")


def _money(amount: int | None) -> Decimal | None:
    return None if amount is None else usd(amount)


def _usages(state: State, key: Key) -> dict[str, Any]:
    spend = state.spend_of(key.hash)
    spend.roll(state.clock())
    return {
        "usage": usd(spend.total),
        "usage_daily": usd(spend.day),
        "usage_weekly": usd(spend.week),
        "usage_monthly": usd(spend.month),
        "byok_usage": 0,
        "byok_usage_daily": 0,
        "byok_usage_weekly": 0,
        "byok_usage_monthly": 0,
    }


def _budgets(state: State, key: Key, now: float) -> list[dict[str, Any]]:
    budgets = []
    guardrail = state.guardrail_of(key.hash)
    if guardrail is not None and guardrail.settings.get("limit_usd") is not None:
        limit = nano(str(guardrail.settings["limit_usd"]))
        budgets.append(_budget(state, key, limit, guardrail.settings.get("reset_interval"), now, guardrail.id))
    if key.limit is not None:
        budgets.append(_budget(state, key, key.limit, key.limit_reset, now, None))
    return budgets


def _budget(
    state: State, key: Key, limit: int, reset: str | None, now: float, guardrail_id: str | None
) -> dict[str, Any]:
    spent = state.spend_of(key.hash).window(reset, now)
    return {
        "budget_id": None,
        "guardrail_id": guardrail_id,
        "include_byok": key.include_byok_in_limit,
        "limit_usd": usd(limit),
        "remaining_usd": usd(max(limit - spent, 0)),
        "reset_interval": reset,
        "resets_at": window_end(reset, now),
        "scope": "key_limit" if guardrail_id is None else "api_key",
        "spend_usd": usd(spent),
    }
