# SPDX-License-Identifier: GPL-3.0-or-later
"""`/admin/v1/organizations`: the platform makes, bounds and ends them; their own people may look."""

from __future__ import annotations

import msgspec
from litestar import Router, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.params import JSONBody

from sophia.gateway.admin.paging import Cursor, FilterName, Limit, PathId, page
from sophia.gateway.admin.policy import Action, Resource
from sophia.gateway.admin.services import Call
from sophia.gateway.admin.views import (
    NewOrganization,
    OrganizationChange,
    OrganizationPage,
    OrganizationView,
    fields_of,
    organization_view,
)
from sophia.stores.registry import Organization

__all__ = ["router"]


@get("/")
async def list_organizations(
    call: NamedDependency[Call], limit: Limit = 50, cursor: Cursor = None, name: FilterName = None
) -> OrganizationPage:
    """The organisations that the caller may see."""
    found, following = await page(call, Organization, Action.ORGANIZATION_READ, limit=limit, cursor=cursor, name=name)
    return OrganizationPage([organization_view(record) for record in found], following)


@post("/")
async def create_organization(call: NamedDependency[Call], data: JSONBody[NewOrganization]) -> OrganizationView:
    """Make an organisation."""
    call.require(Action.ORGANIZATION_CREATE, Resource())
    record = await call.services.registry.create(call.actor, Organization, **fields_of(data))
    return organization_view(record)


@get("/{organization_id:str}")
async def get_organization(call: NamedDependency[Call], organization_id: PathId) -> OrganizationView:
    """One organisation."""
    return organization_view(await call.fetch(Organization, organization_id, Action.ORGANIZATION_READ))


@patch("/{organization_id:str}")
async def update_organization(
    call: NamedDependency[Call], organization_id: PathId, data: JSONBody[OrganizationChange]
) -> OrganizationView:
    """Change what the body names; the rest stays."""
    return await _update(call, organization_id, data)


@delete("/{organization_id:str}")
async def delete_organization(call: NamedDependency[Call], organization_id: PathId) -> None:
    """End an organisation and all below it. Its spend stays on record."""
    await call.fetch(Organization, organization_id, Action.ORGANIZATION_DELETE)
    await call.services.registry.delete(call.actor, Organization, organization_id)


@post("/{organization_id:str}/disable", status_code=200)
async def disable_organization(call: NamedDependency[Call], organization_id: PathId) -> OrganizationView:
    """Kill switch: no key of the organisation works from now on, anywhere, and what runs is stopped."""
    return await _update(call, organization_id, OrganizationChange(disabled=True), "disable")


@post("/{organization_id:str}/enable", status_code=200)
async def enable_organization(call: NamedDependency[Call], organization_id: PathId) -> OrganizationView:
    """Undo the kill switch."""
    return await _update(call, organization_id, OrganizationChange(disabled=False), "enable")


async def _update(
    call: Call, organization_id: str, change: OrganizationChange, action: str = "update"
) -> OrganizationView:
    await call.fetch(Organization, organization_id, Action.ORGANIZATION_UPDATE)
    fields = fields_of(change)
    record = await call.services.registry.update(
        call.actor,
        Organization,
        organization_id,
        lambda before: msgspec.structs.replace(before, **fields),
        action=action,
    )
    return organization_view(record)


router = Router(
    "/organizations",
    route_handlers=[
        list_organizations,
        create_organization,
        get_organization,
        update_organization,
        delete_organization,
        disable_organization,
        enable_organization,
    ],
    tags=["organizations"],
)
