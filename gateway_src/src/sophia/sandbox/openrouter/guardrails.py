# SPDX-License-Identifier: GPL-3.0-or-later
"""`/guardrails` and their keys (schemas Guardrail, KeyAssignment). A key holds at most one; assigning replaces."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from . import bodies
from .auth import management_key
from .errors import VendorError
from .inference import Platform
from .records import Assignment, Guardrail, GuardrailDeleted, Unassigned, iso
from .state import DEFAULT_WORKSPACE, State
from .wire import Exchange

__all__ = ["all_assignments", "assign", "assignments", "create", "delete", "listed", "read", "unassign", "update"]

Names = list[str] | None | UnsetType
Flag = bool | None | UnsetType


class ContentFilter(msgspec.Struct, frozen=True, kw_only=True):
    """ContentFilterEntry."""

    pattern: str
    action: Literal["redact", "block", "flag"]
    label: str | None = None


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What a guardrail can be told; UNSET is what a request did not say."""

    name: str | UnsetType = UNSET
    description: str | UnsetType | None = UNSET
    limit_usd: Decimal | UnsetType | None = UNSET
    reset_interval: Literal["daily", "weekly", "monthly"] | UnsetType | None = UNSET
    include_byok_in_budgets: bool | UnsetType = UNSET
    allowed_models: Names = UNSET
    ignored_models: Names = UNSET
    allowed_providers: Names = UNSET
    ignored_providers: Names = UNSET
    enforce_zdr: Flag = UNSET
    enforce_zdr_anthropic: Flag = UNSET
    enforce_zdr_google: Flag = UNSET
    enforce_zdr_openai: Flag = UNSET
    enforce_zdr_other: Flag = UNSET
    enforce_zdr_xai: Flag = UNSET
    enable_free_model_publication: Flag = UNSET
    enable_free_model_training: Flag = UNSET
    enable_paid_model_training: Flag = UNSET
    content_filters: list[ContentFilter] | UnsetType | None = UNSET
    content_filter_builtins: list[dict[str, Any]] | UnsetType | None = UNSET


class CreateGuardrail(Settings, frozen=True, kw_only=True):
    """CreateGuardrailRequest."""

    workspace_id: str | None = None


class KeyHashes(msgspec.Struct, frozen=True, kw_only=True):
    """BulkAssignKeysRequest."""

    key_hashes: list[str]


async def listed(platform: Platform, exchange: Exchange) -> None:
    """`GET /guardrails`."""
    state = platform.state
    management_key(state, exchange)
    parameters = exchange.parameters()
    workspace = parameters.get("workspace_id", DEFAULT_WORKSPACE)
    found = [item for item in state.account.guardrails.values() if item.workspace_id == workspace]
    window = bodies.page(parameters, 50, 100)
    await exchange.reply({"data": [view(item) for item in found[window]], "total_count": len(found)})


async def create(platform: Platform, exchange: Exchange) -> None:
    """`POST /guardrails`: 201."""
    state = platform.state
    management_key(state, exchange)
    body = await bodies.read(exchange, CreateGuardrail, state.config.max_body)
    if body.name is UNSET:
        raise VendorError(400, "name is required")
    workspace = body.workspace_id or DEFAULT_WORKSPACE
    if workspace not in state.account.workspaces:
        raise VendorError(400, "workspace_id names no workspace")
    made = Guardrail(
        id=state.uuid(),
        name=_name(body.name),
        workspace_id=workspace,
        created_at=state.clock(),
        settings=_settings(body),
    )
    state.record(made)
    await exchange.reply({"data": view(made)}, 201)


async def read(platform: Platform, exchange: Exchange, guardrail_id: str) -> None:
    """`GET /guardrails/{id}`."""
    management_key(platform.state, exchange)
    await exchange.reply({"data": view(_find(platform.state, guardrail_id))})


async def update(platform: Platform, exchange: Exchange, guardrail_id: str) -> None:
    """`PATCH /guardrails/{id}`: only the fields that were sent."""
    state = platform.state
    management_key(state, exchange)
    found = _find(state, guardrail_id)
    body = await bodies.read(exchange, Settings, state.config.max_body)
    changed = msgspec.structs.replace(
        found,
        name=found.name if body.name is UNSET else _name(body.name),
        settings={**found.settings, **_settings(body)},
        updated_at=state.clock(),
    )
    state.record(changed)
    await exchange.reply({"data": view(changed)})


async def delete(platform: Platform, exchange: Exchange, guardrail_id: str) -> None:
    """`DELETE /guardrails/{id}`: its keys are unguarded from then on."""
    management_key(platform.state, exchange)
    platform.state.record(GuardrailDeleted(_find(platform.state, guardrail_id).id))
    await exchange.reply({"deleted": True})


async def assignments(platform: Platform, exchange: Exchange, guardrail_id: str) -> None:
    """`GET /guardrails/{id}/assignments/keys`."""
    state = platform.state
    management_key(state, exchange)
    found = _find(state, guardrail_id)
    await _send_assignments(state, exchange, [item for item in _assigned(state) if item.guardrail_id == found.id])


async def all_assignments(platform: Platform, exchange: Exchange) -> None:
    """`GET /guardrails/assignments/keys`."""
    management_key(platform.state, exchange)
    await _send_assignments(platform.state, exchange, _assigned(platform.state))


async def assign(platform: Platform, exchange: Exchange, guardrail_id: str) -> None:
    """`POST /guardrails/{id}/assignments/keys`. Raises `VendorError` 404, with nothing assigned, for an unknown key."""
    state = platform.state
    management_key(state, exchange)
    found = _find(state, guardrail_id)
    body = await bodies.read(exchange, KeyHashes, state.config.max_body)
    hashes = _known(state, body.key_hashes)
    now = state.clock()
    count = 0
    for key_hash in hashes:
        present = state.account.assignments.get(key_hash)
        if present is None or present.guardrail_id != found.id:
            made = Assignment(id=state.uuid(), guardrail_id=found.id, key_hash=key_hash, created_at=now)
            state.record(made)
            count += 1
    await exchange.reply({"assigned_count": count})


async def unassign(platform: Platform, exchange: Exchange, guardrail_id: str) -> None:
    """`POST /guardrails/{id}/assignments/keys/remove`."""
    state = platform.state
    management_key(state, exchange)
    found = _find(state, guardrail_id)
    body = await bodies.read(exchange, KeyHashes, state.config.max_body)
    count = 0
    for key_hash in dict.fromkeys(body.key_hashes):
        present = state.account.assignments.get(key_hash)
        if present is not None and present.guardrail_id == found.id:
            state.record(Unassigned(key_hash))
            count += 1
    await exchange.reply({"unassigned_count": count})


def view(item: Guardrail) -> dict[str, Any]:
    """Guardrail, with null for what was never set."""
    shown = dict.fromkeys(name for name in Settings.__struct_fields__ if name != "name") | item.settings
    if shown["limit_usd"] is not None:
        shown["limit_usd"] = Decimal(shown["limit_usd"])
    shown["include_byok_in_budgets"] = bool(shown["include_byok_in_budgets"])
    return {
        "id": item.id,
        "name": item.name,
        "workspace_id": item.workspace_id,
        "created_at": iso(item.created_at),
        "updated_at": None if item.updated_at is None else iso(item.updated_at),
        **shown,
    }


def _settings(body: Settings) -> dict[str, Any]:
    """The settings that were sent, as plain data for the journal; money as a string."""
    sent = {name: getattr(body, name) for name in Settings.__struct_fields__ if name != "name"}
    plain: dict[str, Any] = msgspec.to_builtins({name: value for name, value in sent.items() if value is not UNSET})
    limit = body.limit_usd
    if isinstance(limit, Decimal) and (limit < 0 or not limit.is_finite()):
        raise VendorError(400, "limit_usd must not be negative")
    return plain


def _name(name: str) -> str:
    if not 1 <= len(name) <= 200:
        raise VendorError(400, "name must have 1 to 200 characters")
    return name


def _find(state: State, guardrail_id: str) -> Guardrail:
    found = state.account.guardrails.get(guardrail_id)
    if found is None:
        raise VendorError(404, "Guardrail not found")
    return found


def _known(state: State, hashes: list[str]) -> list[str]:
    if not hashes:
        raise VendorError(400, "key_hashes must not be empty")
    for key_hash in hashes:
        if key_hash not in state.account.keys:
            raise VendorError(404, f"API key {key_hash} not found")
    return list(dict.fromkeys(hashes))


def _assigned(state: State) -> list[Assignment]:
    return [item for item in state.account.assignments.values() if item.key_hash in state.account.keys]


async def _send_assignments(state: State, exchange: Exchange, found: list[Assignment]) -> None:
    window = bodies.page(exchange.parameters(), 50, 100)
    data = [
        {
            "id": item.id,
            "guardrail_id": item.guardrail_id,
            "key_hash": item.key_hash,
            "key_name": state.account.keys[item.key_hash].name,
            "key_label": state.account.keys[item.key_hash].label,
            "assigned_by": None,
            "created_at": iso(item.created_at),
        }
        for item in found[window]
    ]
    await exchange.reply({"data": data, "total_count": len(found)})
