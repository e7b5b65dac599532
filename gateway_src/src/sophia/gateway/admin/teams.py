# SPDX-License-Identifier: GPL-3.0-or-later
"""`/admin/v1/teams`: an organisation's own administrators make and bound them."""

from __future__ import annotations

import msgspec
from litestar import Router, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.params import JSONBody

from sophia.gateway.admin.paging import Cursor, FilterId, FilterName, Limit, PathId, page
from sophia.gateway.admin.policy import Action, Resource
from sophia.gateway.admin.services import Call
from sophia.gateway.admin.views import NewTeam, TeamChange, TeamPage, TeamView, fields_of, team_view
from sophia.stores.model import Level
from sophia.stores.registry import Organization, Team, not_found

__all__ = ["router"]


@get("/")
async def list_teams(
    call: NamedDependency[Call],
    limit: Limit = 50,
    cursor: Cursor = None,
    name: FilterName = None,
    organization: FilterId = None,
) -> TeamPage:
    """The teams that the caller may see."""
    found, following = await page(
        call, Team, Action.TEAM_READ, limit=limit, cursor=cursor, name=name, organization=organization
    )
    return TeamPage([team_view(record) for record in found], following)


@post("/")
async def create_team(call: NamedDependency[Call], data: JSONBody[NewTeam]) -> TeamView:
    """Make a team."""
    parent = Resource(Level.ORGANIZATION, data.organization)
    call.require(Action.TEAM_CREATE, parent, not_found(Organization, data.organization))
    return team_view(await call.services.registry.create(call.actor, Team, **fields_of(data)))


@get("/{team_id:str}")
async def get_team(call: NamedDependency[Call], team_id: PathId) -> TeamView:
    """One team."""
    return team_view(await call.fetch(Team, team_id, Action.TEAM_READ))


@patch("/{team_id:str}")
async def update_team(call: NamedDependency[Call], team_id: PathId, data: JSONBody[TeamChange]) -> TeamView:
    """Change what the body names; the rest stays."""
    return await _update(call, team_id, data)


@delete("/{team_id:str}")
async def delete_team(call: NamedDependency[Call], team_id: PathId) -> None:
    """End a team that has no users left. Its spend stays on record."""
    await call.fetch(Team, team_id, Action.TEAM_DELETE)
    await call.services.registry.delete(call.actor, Team, team_id)


@post("/{team_id:str}/disable", status_code=200)
async def disable_team(call: NamedDependency[Call], team_id: PathId) -> TeamView:
    """Kill switch: no key of the team's users works from now on, anywhere, and what runs is stopped."""
    return await _update(call, team_id, TeamChange(disabled=True), "disable")


@post("/{team_id:str}/enable", status_code=200)
async def enable_team(call: NamedDependency[Call], team_id: PathId) -> TeamView:
    """Undo the kill switch."""
    return await _update(call, team_id, TeamChange(disabled=False), "enable")


async def _update(call: Call, team_id: str, change: TeamChange, action: str = "update") -> TeamView:
    await call.fetch(Team, team_id, Action.TEAM_UPDATE)
    fields = fields_of(change)
    record = await call.services.registry.update(
        call.actor, Team, team_id, lambda before: msgspec.structs.replace(before, **fields), action=action
    )
    return team_view(record)


router = Router(
    "/teams",
    route_handlers=[list_teams, create_team, get_team, update_team, delete_team, disable_team, enable_team],
    tags=["teams"],
)
