# SPDX-License-Identifier: GPL-3.0-or-later
"""`/workspaces` (schema Workspace): keys and guardrails belong to one; there is always the default one."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from . import bodies
from .auth import management_key
from .errors import VendorError
from .inference import Platform
from .records import Workspace, WorkspaceDeleted, iso
from .state import DEFAULT_WORKSPACE, State
from .wire import Exchange

__all__ = ["create", "delete", "listed", "read", "update"]

SLUG = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
OPTIONS: dict[str, Any] = {
    "description": None,
    "default_text_model": None,
    "default_image_model": None,
    "default_provider_sort": None,
    "io_logging_api_key_ids": None,
    "io_logging_sampling_rate": 1.0,
    "is_data_discount_logging_enabled": True,
    "is_observability_broadcast_enabled": False,
    "is_observability_io_logging_enabled": False,
}


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """UpdateWorkspaceRequest; UNSET is what a request did not say."""

    name: str | UnsetType = UNSET
    slug: str | UnsetType = UNSET
    description: str | UnsetType | None = UNSET
    default_text_model: str | UnsetType | None = UNSET
    default_image_model: str | UnsetType | None = UNSET
    default_provider_sort: str | UnsetType | None = UNSET
    io_logging_api_key_ids: list[int] | UnsetType | None = UNSET
    io_logging_sampling_rate: float | UnsetType = UNSET
    is_data_discount_logging_enabled: bool | UnsetType = UNSET
    is_observability_broadcast_enabled: bool | UnsetType = UNSET
    is_observability_io_logging_enabled: bool | UnsetType = UNSET


async def listed(platform: Platform, exchange: Exchange) -> None:
    """`GET /workspaces`."""
    management_key(platform.state, exchange)
    found = list(platform.state.account.workspaces.values())
    window = bodies.page(exchange.parameters(), 50, 100)
    await exchange.reply({"data": [view(item) for item in found[window]], "total_count": len(found)})


async def create(platform: Platform, exchange: Exchange) -> None:
    """`POST /workspaces`: 201."""
    state = platform.state
    management_key(state, exchange)
    body = await bodies.read(exchange, Settings, state.config.max_body)
    if body.name is UNSET or body.slug is UNSET:
        raise VendorError(400, "name and slug are required")
    _check(state, body, None)
    made = Workspace(
        id=state.uuid(),
        name=body.name,
        slug=body.slug,
        created_at=state.clock(),
        default_guardrail_id=state.uuid(),
        settings=_settings(body),
    )
    state.record(made)
    await exchange.reply({"data": view(made)}, 201)


async def read(platform: Platform, exchange: Exchange, name: str) -> None:
    """`GET /workspaces/{id or slug}`."""
    management_key(platform.state, exchange)
    await exchange.reply({"data": view(_find(platform.state, name))})


async def update(platform: Platform, exchange: Exchange, name: str) -> None:
    """`PATCH /workspaces/{id or slug}`."""
    state = platform.state
    management_key(state, exchange)
    found = _find(state, name)
    body = await bodies.read(exchange, Settings, state.config.max_body)
    _check(state, body, found)
    changed = msgspec.structs.replace(
        found,
        name=found.name if body.name is UNSET else body.name,
        slug=found.slug if body.slug is UNSET else body.slug,
        settings={**found.settings, **_settings(body)},
        updated_at=state.clock(),
    )
    state.record(changed)
    await exchange.reply({"data": view(changed)})


async def delete(platform: Platform, exchange: Exchange, name: str) -> None:
    """`DELETE /workspaces/{id or slug}`: 400 for the default one, or one that still has keys."""
    state = platform.state
    management_key(state, exchange)
    found = _find(state, name)
    if found.id == DEFAULT_WORKSPACE:
        raise VendorError(400, "The default workspace cannot be deleted")
    if any(key.workspace_id == found.id for key in state.account.keys.values()):
        raise VendorError(400, "The workspace still has API keys")
    state.record(WorkspaceDeleted(found.id))
    await exchange.reply({"deleted": True})


def view(item: Workspace) -> dict[str, Any]:
    """Workspace."""
    return {
        "id": item.id,
        "name": item.name,
        "slug": item.slug,
        "created_at": iso(item.created_at),
        "updated_at": None if item.updated_at is None else iso(item.updated_at),
        "created_by": None,
        "default_guardrail_id": item.default_guardrail_id,
        **OPTIONS,
        **item.settings,
    }


def _settings(body: Settings) -> dict[str, Any]:
    sent = {name: getattr(body, name) for name in OPTIONS}
    return {name: value for name, value in sent.items() if value is not UNSET}


def _check(state: State, body: Settings, present: Workspace | None) -> None:
    if isinstance(body.name, str) and not 1 <= len(body.name) <= 100:
        raise VendorError(400, "name must have 1 to 100 characters")
    if not isinstance(body.slug, str):
        return
    if len(body.slug) > 50 or SLUG.fullmatch(body.slug) is None:
        raise VendorError(400, "slug must have 1 to 50 lower-case letters and digits, separated by single hyphens")
    if any(item.slug == body.slug and item is not present for item in state.account.workspaces.values()):
        raise VendorError(400, f"slug {body.slug} is taken")


def _find(state: State, name: str) -> Workspace:
    workspaces = state.account.workspaces
    found = workspaces.get(name) or next((item for item in workspaces.values() if item.slug == name), None)
    if found is None:
        raise VendorError(404, "Workspace not found")
    return found
