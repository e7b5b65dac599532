# SPDX-License-Identifier: GPL-3.0-or-later
"""`/admin/v1/keys`: made, rotated and ended by administrators, and by their users for themselves.

Nobody but the platform gives a key more than their own key has: neither scopes nor models.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
from litestar import Router, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.params import JSONBody
from msgspec import UNSET

from sophia.errors import Forbidden
from sophia.gateway.admin.paging import Cursor, FilterId, FilterName, Limit, PathId, page
from sophia.gateway.admin.policy import Action
from sophia.gateway.admin.services import Call
from sophia.gateway.admin.views import (
    KeyChange,
    KeyPage,
    KeySecret,
    KeyView,
    NewKey,
    Rotation,
    fields_of,
    key_secret,
    key_view,
)
from sophia.stores.model import Role
from sophia.stores.registry import SCOPES, Key, User, digest, new_secret, not_found, shown_prefix
from sophia.stores.tenancy import intersection

__all__ = ["router"]

_DEFAULT_SCOPES = SCOPES - {"admin"}


@get("/")
async def list_keys(
    call: NamedDependency[Call],
    limit: Limit = 50,
    cursor: Cursor = None,
    name: FilterName = None,
    organization: FilterId = None,
    user: FilterId = None,
) -> KeyPage:
    """The keys that the caller may see, without their secrets."""
    found, following = await page(
        call, Key, Action.KEY_READ, limit=limit, cursor=cursor, name=name, organization=organization, user=user
    )
    return KeyPage([key_view(record) for record in found], following)


@post("/")
async def create_key(call: NamedDependency[Call], data: JSONBody[NewKey]) -> KeySecret:
    """Make a key. Its secret is in this answer and nowhere else."""
    call.require_reach(Action.KEY_CREATE)
    user = await call.services.registry.get(User, data.user)
    fields = fields_of(data)
    scopes = fields.get("scopes")
    if scopes is None:
        scopes = _DEFAULT_SCOPES if _unbounded(call) else _DEFAULT_SCOPES & call.principal.scopes
    call.require(Action.KEY_CREATE, await call.resource(user), not_found(User, data.user))
    await _check_grant(call, user, data, scopes)
    if fields.get("models") is None and not _unbounded(call):
        fields["models"] = call.principal.models
    secret = new_secret()
    record = await call.services.registry.create(
        call.actor,
        Key,
        **fields | {"scopes": scopes},
        organization=user.organization,
        prefix=shown_prefix(secret),
        digest=digest(secret),
    )
    return key_secret(record, secret)


@get("/{key_id:str}")
async def get_key(call: NamedDependency[Call], key_id: PathId) -> KeyView:
    """One key, without its secret."""
    return key_view(await call.fetch(Key, key_id, Action.KEY_READ))


@patch("/{key_id:str}")
async def update_key(call: NamedDependency[Call], key_id: PathId, data: JSONBody[KeyChange]) -> KeyView:
    """Change what the body names; the rest stays."""
    return await _update(call, key_id, data)


@post("/{key_id:str}/rotate", status_code=200)
async def rotate_key(call: NamedDependency[Call], key_id: PathId, data: JSONBody[Rotation]) -> KeySecret:
    """Give the key a new secret. The one before works for the overlap; one before that stops at once."""
    before = await call.fetch(Key, key_id, Action.KEY_ROTATE)
    call.require(Action.KEY_ROTATE, await call.resource(before, before.scopes))
    _check_models(call, before.models)
    secret = new_secret()
    until = call.services.clock() + data.overlap * 1_000_000_000

    def rotate(key: Key) -> Key:
        return msgspec.structs.replace(
            key,
            prefix=shown_prefix(secret),
            digest=digest(secret),
            retiring_digest=key.digest if data.overlap else None,
            retiring_until=until if data.overlap else None,
        )

    record = await call.services.registry.update(call.actor, Key, key_id, rotate, action="rotate")
    return key_secret(record, secret)


@delete("/{key_id:str}")
async def delete_key(call: NamedDependency[Call], key_id: PathId) -> None:
    """End a key at once. Its spend stays on record."""
    await call.fetch(Key, key_id, Action.KEY_DELETE)
    await call.services.registry.delete(call.actor, Key, key_id)


@post("/{key_id:str}/disable", status_code=200)
async def disable_key(call: NamedDependency[Call], key_id: PathId) -> KeyView:
    """Kill switch: the key does not work from now on, anywhere, and what runs is stopped."""
    return await _update(call, key_id, KeyChange(disabled=True), "disable")


@post("/{key_id:str}/enable", status_code=200)
async def enable_key(call: NamedDependency[Call], key_id: PathId) -> KeyView:
    """Undo the kill switch."""
    return await _update(call, key_id, KeyChange(disabled=False), "enable")


async def _update(call: Call, key_id: str, change: KeyChange, action: str = "update") -> KeyView:
    before = await call.fetch(Key, key_id, Action.KEY_UPDATE)
    fields: dict[str, Any] = fields_of(change)
    await _check_grant(call, before, change, fields.get("scopes", before.scopes) - before.scopes)
    record = await call.services.registry.update(
        call.actor, Key, key_id, lambda before: msgspec.structs.replace(before, **fields), action=action
    )
    return key_view(record)


async def _check_grant(call: Call, about: Key | User, body: NewKey | KeyChange, scopes: frozenset[str]) -> None:
    """What a body would give a key must be the caller's to give."""
    action = Action.KEY_CREATE if isinstance(body, NewKey) else Action.KEY_UPDATE
    resource = await call.resource(about)
    call.require(action, replace(resource, scopes=scopes))
    if body.budgets is not UNSET or body.limits is not UNSET:
        call.require(Action.KEY_BOUND, resource)
    if body.models is not UNSET and not (isinstance(body, NewKey) and body.models is None):
        _check_models(call, None if body.models is None else tuple(body.models))


def _check_models(call: Call, models: tuple[str, ...] | None) -> None:
    own = call.principal.models
    if own is None or _unbounded(call):
        return
    if models is None or set(intersection((models, own)) or ()) != set(models):
        raise Forbidden("models_beyond_own", "a key can be given no models that your own key may not use")


def _unbounded(call: Call) -> bool:
    return call.principal.role is Role.PLATFORM_ADMIN


router = Router(
    "/keys",
    route_handlers=[
        list_keys,
        create_key,
        get_key,
        update_key,
        rotate_key,
        delete_key,
        disable_key,
        enable_key,
    ],
    tags=["keys"],
)
