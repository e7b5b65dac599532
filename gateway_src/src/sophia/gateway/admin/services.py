# SPDX-License-Identifier: GPL-3.0-or-later
"""What the management API stands on, and one call of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Protocol, TypeVar

from litestar import Request
from litestar.datastructures import State

from sophia.errors import Forbidden, NotFound
from sophia.gateway.admin.policy import Action, Reach, Resource, Verdict, allowed, reach
from sophia.gateway.match import Match
from sophia.stores.audit import Actor, Audit
from sophia.stores.database import Database
from sophia.stores.flags import Flags
from sophia.stores.model import Level, Principal
from sophia.stores.registry import LEVELS, Key, Organization, Record, Registry, Team, User, not_found
from sophia.stores.tenancy import Tenancy

__all__ = ["Call", "MatchDay", "Purge", "Services", "provide_call"]

R = TypeVar("R", bound=Record)


class Purge(Protocol):
    """Drop cached answers, all that meet every criterion given; returns how many were dropped."""

    async def __call__(self, *, organization: str | None, model: str | None, tag: str | None) -> int: ...


class MatchDay(Protocol):
    """Compare the ledger of a UTC day (yesterday if None) with OpenRouter's account."""

    async def __call__(self, day: date | None) -> Match: ...


@dataclass(frozen=True, slots=True)
class Services:
    """The stores of the management API, built and owned by whoever mounts it. `clock` in nanoseconds."""

    database: Database
    registry: Registry
    tenancy: Tenancy
    flags: Flags
    audit: Audit
    purge: Purge
    match: MatchDay
    clock: Callable[[], int] = time.time_ns


class Call:
    """One call: who asks (`principal`), and what may be done for them (`services`)."""

    def __init__(self, services: Services, principal: Principal) -> None:
        self.services = services
        self.principal = principal

    @property
    def actor(self) -> Actor:
        """The caller as the audit log names it."""
        return Actor(self.principal.key, self.principal.user)

    def require(self, action: Action, resource: Resource, hidden: NotFound | None = None) -> None:
        """Return when the policy allows it.

        Raises:
            Forbidden: the caller may see the resource, but not do this.
            NotFound: the caller may not know of it; `hidden` is the answer it would get if there were none.
        """
        verdict = allowed(self.principal, action, resource)
        if verdict is Verdict.ALLOWED:
            return
        if verdict is Verdict.HIDDEN:
            raise hidden or NotFound("not_found", "there is no such resource")
        if "admin" not in self.principal.scopes:
            raise Forbidden("scope_missing", "this key lacks the scope `admin`; use one that has it")
        raise Forbidden("not_permitted", f"the role {self.principal.role} may not do this ({action})")

    def require_reach(self, action: Action) -> None:
        """Return when the caller may do this to anything at all.

        Raises:
            Forbidden: it may not.
        """
        if reach(self.principal, action) is Reach.NOTHING:
            self.require(action, Resource())

    async def resource(self, record: Record, scopes: frozenset[str] = frozenset()) -> Resource:
        """A record as the policy sees it; a key acts as its user."""
        level = LEVELS[type(record)]
        if isinstance(record, Organization):
            return Resource(level, record.id)
        if isinstance(record, Team):
            return Resource(level, record.organization, team=record.id)
        if isinstance(record, User):
            return Resource(level, record.organization, record.team, record.id, record.role)
        if isinstance(record, Key):
            user = await self.services.registry.get(User, record.user)
            return Resource(level, record.organization, user.team, user.id, user.role, scopes)
        raise TypeError(type(record))

    async def fetch(self, kind: type[R], record_id: str, action: Action) -> R:
        """The record, when the caller may do `action` to it. Nothing is read for who can never do it."""
        self.require_reach(action)
        record = await self.services.registry.get(kind, record_id)
        self.require(action, await self.resource(record), not_found(kind, record_id))
        return record

    async def narrow(
        self, action: Action, *, organization: str | None = None, team: str | None = None, user: str | None = None
    ) -> dict[str, str | None]:
        """The filters of a list: what was asked for, cut down to the caller's reach.

        Raises:
            Forbidden: the caller may not list this at all.
            NotFound: a filter names what the caller may not know of.
        """
        self.require_reach(action)
        extent = reach(self.principal, action)
        if extent is not Reach.ALL:
            if organization is not None:
                hidden = not_found(Organization, organization)
                self.require(Action.ORGANIZATION_READ, Resource(Level.ORGANIZATION, organization), hidden)
            if team is not None:
                await self.fetch(Team, team, Action.TEAM_READ)
            if user is not None:
                await self.fetch(User, user, Action.USER_READ)
            organization = self.principal.organization
        if extent is Reach.OWN:
            user = self.principal.user
        return {"organization": organization, "team": team, "user": user}


def provide_call(request: Request[Principal, None, State]) -> Call:
    """The call's dependency: made from what authentication found."""
    return Call(request.app.state.services, request.user)
