# SPDX-License-Identifier: GPL-3.0-or-later
"""`/admin/v1/flags`: each changed alone, from the version that was read. Flags of the file are read-only."""

from __future__ import annotations

from typing import Annotated

from litestar import Router, delete, get, put
from litestar.di import NamedDependency
from litestar.params import JSONBody, PathParameter, QueryParameter

from sophia.errors import NotFound
from sophia.gateway.admin.policy import Action, Resource
from sophia.gateway.admin.services import Call
from sophia.gateway.admin.views import FlagChange, FlagList, FlagView, fields_of, flag_view
from sophia.stores.flags import NAME_PATTERN
from sophia.stores.model import Flag
from sophia.stores.registry import Organization

__all__ = ["router"]

FlagPath = Annotated[str, PathParameter(pattern=NAME_PATTERN)]
Version = Annotated[int, QueryParameter(ge=1, le=2**53, description="The version that was read")]


@get("/")
async def list_flags(call: NamedDependency[Call]) -> FlagList:
    """Every flag in force."""
    call.require(Action.FLAG_READ, Resource())
    flags = call.services.flags
    return FlagList([flag_view(flag, flags.read_only(flag.name)) for flag in flags.all()])


@get("/{flag_name:str}")
async def get_flag(call: NamedDependency[Call], flag_name: FlagPath) -> FlagView:
    """One flag."""
    call.require(Action.FLAG_READ, Resource())
    flag = call.services.flags.get(flag_name)
    if flag is None:
        raise NotFound("flag_not_found", f"there is no flag {flag_name!r}")
    return flag_view(flag, call.services.flags.read_only(flag_name))


@put("/{flag_name:str}")
async def put_flag(call: NamedDependency[Call], flag_name: FlagPath, data: JSONBody[FlagChange]) -> FlagView:
    """Make or replace one flag; in force everywhere in less than a second. 409 when it has changed since."""
    call.require(Action.FLAG_WRITE, Resource())
    known = call.services.flags.get(flag_name)
    for organization in data.organizations.keys() - (known.organizations.keys() if known else set()):
        await call.services.registry.get(Organization, organization)
    fields = fields_of(data)
    version = fields.pop("version")
    flag = await call.services.flags.put(call.actor, Flag(name=flag_name, **fields), version)
    return flag_view(flag, False)


@delete("/{flag_name:str}")
async def delete_flag(call: NamedDependency[Call], flag_name: FlagPath, version: Version) -> None:
    """Remove one flag; it is off from now on. 409 when it has changed since."""
    call.require(Action.FLAG_WRITE, Resource())
    await call.services.flags.delete(call.actor, flag_name, version)


router = Router("/flags", route_handlers=[list_flags, get_flag, put_flag, delete_flag], tags=["flags"])
