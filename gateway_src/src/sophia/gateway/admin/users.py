# SPDX-License-Identifier: GPL-3.0-or-later
"""`/admin/v1/users`: people and programs of an organisation, with their roles."""

from __future__ import annotations

from dataclasses import replace

import msgspec
from litestar import Router, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.params import JSONBody
from msgspec import UNSET

from sophia.gateway.admin.paging import Cursor, FilterId, FilterName, Limit, PathId, page
from sophia.gateway.admin.policy import Action, Resource
from sophia.gateway.admin.services import Call
from sophia.gateway.admin.views import NewUser, UserChange, UserPage, UserView, fields_of, user_view
from sophia.stores.model import Level
from sophia.stores.registry import Organization, User, not_found

__all__ = ["router"]


@get("/")
async def list_users(
    call: NamedDependency[Call],
    limit: Limit = 50,
    cursor: Cursor = None,
    name: FilterName = None,
    organization: FilterId = None,
    team: FilterId = None,
) -> UserPage:
    """The users that the caller may see."""
    found, following = await page(
        call, User, Action.USER_READ, limit=limit, cursor=cursor, name=name, organization=organization, team=team
    )
    return UserPage([user_view(record) for record in found], following)


@post("/")
async def create_user(call: NamedDependency[Call], data: JSONBody[NewUser]) -> UserView:
    """Make a user, with a role no higher than the caller's own."""
    parent = Resource(Level.ORGANIZATION, data.organization, role=data.role)
    call.require(Action.USER_CREATE, parent, not_found(Organization, data.organization))
    return user_view(await call.services.registry.create(call.actor, User, **fields_of(data)))


@get("/{user_id:str}")
async def get_user(call: NamedDependency[Call], user_id: PathId) -> UserView:
    """One user."""
    return user_view(await call.fetch(User, user_id, Action.USER_READ))


@patch("/{user_id:str}")
async def update_user(call: NamedDependency[Call], user_id: PathId, data: JSONBody[UserChange]) -> UserView:
    """Change what the body names; the rest stays. Nobody is raised above the caller's own role."""
    return await _update(call, user_id, data)


@delete("/{user_id:str}")
async def delete_user(call: NamedDependency[Call], user_id: PathId) -> None:
    """End a user and all their keys. Their spend stays on record."""
    await call.fetch(User, user_id, Action.USER_DELETE)
    await call.services.registry.delete(call.actor, User, user_id)


@post("/{user_id:str}/disable", status_code=200)
async def disable_user(call: NamedDependency[Call], user_id: PathId) -> UserView:
    """Kill switch: no key of the user works from now on, anywhere, and what runs is stopped."""
    return await _update(call, user_id, UserChange(disabled=True), "disable")


@post("/{user_id:str}/enable", status_code=200)
async def enable_user(call: NamedDependency[Call], user_id: PathId) -> UserView:
    """Undo the kill switch."""
    return await _update(call, user_id, UserChange(disabled=False), "enable")


async def _update(call: Call, user_id: str, change: UserChange, action: str = "update") -> UserView:
    before = await call.fetch(User, user_id, Action.USER_UPDATE)
    if change.role is not UNSET:
        call.require(Action.USER_UPDATE, replace(await call.resource(before), role=change.role))
    fields = fields_of(change)
    record = await call.services.registry.update(
        call.actor, User, user_id, lambda before: msgspec.structs.replace(before, **fields), action=action
    )
    return user_view(record)


router = Router(
    "/users",
    route_handlers=[list_users, create_user, get_user, update_user, delete_user, disable_user, enable_user],
    tags=["users"],
)
