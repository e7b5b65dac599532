# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may do what in the management API: one table, and one function that reads it.

A role has a reach for every action: nothing, its own, its organisation, everything. What a role can never do is
forbidden (403), whether or not the resource exists; else, what the caller may not even read is hidden from it (404, as
if it did not exist), and what it may read but not do is forbidden. Beyond the table, nobody acts on a role above their
own, and nobody but the platform gives a key scopes that their own key lacks.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from sophia.stores.model import Level, Principal, Role

__all__ = ["POLICY", "Action", "Reach", "Resource", "Verdict", "allowed", "reach"]


class Action(enum.StrEnum):
    """Everything that the API does, by resource and verb."""

    ORGANIZATION_READ = "organization.read"
    ORGANIZATION_CREATE = "organization.create"
    ORGANIZATION_UPDATE = "organization.update"
    ORGANIZATION_DELETE = "organization.delete"
    TEAM_READ = "team.read"
    TEAM_CREATE = "team.create"
    TEAM_UPDATE = "team.update"
    TEAM_DELETE = "team.delete"
    USER_READ = "user.read"
    USER_CREATE = "user.create"
    USER_UPDATE = "user.update"
    USER_DELETE = "user.delete"
    KEY_READ = "key.read"
    KEY_CREATE = "key.create"
    KEY_UPDATE = "key.update"
    KEY_BOUND = "key.bound"
    KEY_ROTATE = "key.rotate"
    KEY_DELETE = "key.delete"
    FLAG_READ = "flag.read"
    FLAG_WRITE = "flag.write"
    AUDIT_READ = "audit.read"
    AUDIT_VERIFY = "audit.verify"
    USAGE_READ = "usage.read"
    SPEND_MATCH = "spend.match"
    CACHE_READ = "cache.read"
    CACHE_PURGE = "cache.purge"
    ME_READ = "me.read"


class Reach(enum.IntEnum):
    """How far a role gets with an action."""

    NOTHING = 0
    OWN = 1
    ORGANIZATION = 2
    ALL = 3


class Verdict(enum.Enum):
    """What becomes of a call: done, 403, or 404."""

    ALLOWED = "allowed"
    FORBIDDEN = "forbidden"
    HIDDEN = "hidden"


@dataclass(frozen=True, slots=True)
class Resource:
    """What an action is about. `level` None is the platform itself.

    To create something is an action on its parent. `role` is what the resource could act as, `scopes` what the
    action would hand out.
    """

    level: Level | None = None
    organization: str | None = None
    team: str | None = None
    user: str | None = None
    role: Role | None = None
    scopes: frozenset[str] = frozenset()


_NOTHING, _OWN, _ORGANIZATION, _ALL = Reach
_ROLES = (Role.PLATFORM_ADMIN, Role.ORGANIZATION_ADMIN, Role.MEMBER)
_TABLE: Mapping[Action, tuple[Reach, Reach, Reach]] = {
    Action.ORGANIZATION_READ: (_ALL, _ORGANIZATION, _ORGANIZATION),
    Action.ORGANIZATION_CREATE: (_ALL, _NOTHING, _NOTHING),
    Action.ORGANIZATION_UPDATE: (_ALL, _NOTHING, _NOTHING),
    Action.ORGANIZATION_DELETE: (_ALL, _NOTHING, _NOTHING),
    Action.TEAM_READ: (_ALL, _ORGANIZATION, _OWN),
    Action.TEAM_CREATE: (_ALL, _ORGANIZATION, _NOTHING),
    Action.TEAM_UPDATE: (_ALL, _ORGANIZATION, _NOTHING),
    Action.TEAM_DELETE: (_ALL, _ORGANIZATION, _NOTHING),
    Action.USER_READ: (_ALL, _ORGANIZATION, _OWN),
    Action.USER_CREATE: (_ALL, _ORGANIZATION, _NOTHING),
    Action.USER_UPDATE: (_ALL, _ORGANIZATION, _NOTHING),
    Action.USER_DELETE: (_ALL, _ORGANIZATION, _NOTHING),
    Action.KEY_READ: (_ALL, _ORGANIZATION, _OWN),
    Action.KEY_CREATE: (_ALL, _ORGANIZATION, _OWN),
    Action.KEY_UPDATE: (_ALL, _ORGANIZATION, _OWN),
    Action.KEY_BOUND: (_ALL, _ORGANIZATION, _NOTHING),
    Action.KEY_ROTATE: (_ALL, _ORGANIZATION, _OWN),
    Action.KEY_DELETE: (_ALL, _ORGANIZATION, _OWN),
    Action.FLAG_READ: (_ALL, _NOTHING, _NOTHING),
    Action.FLAG_WRITE: (_ALL, _NOTHING, _NOTHING),
    Action.AUDIT_READ: (_ALL, _ORGANIZATION, _NOTHING),
    Action.AUDIT_VERIFY: (_ALL, _NOTHING, _NOTHING),
    Action.USAGE_READ: (_ALL, _ORGANIZATION, _OWN),
    Action.SPEND_MATCH: (_ALL, _NOTHING, _NOTHING),
    Action.CACHE_READ: (_ALL, _ORGANIZATION, _NOTHING),
    Action.CACHE_PURGE: (_ALL, _ORGANIZATION, _NOTHING),
    Action.ME_READ: (_ALL, _ALL, _ALL),
}
POLICY: Mapping[tuple[Role, Action], Reach] = {
    (role, action): reach for action, row in _TABLE.items() for role, reach in zip(_ROLES, row, strict=True)
}
# Only these need no `admin` scope: a key may always ask what it is.
_UNSCOPED = frozenset({Action.ME_READ})
_VISIBLE = {
    Level.ORGANIZATION: Action.ORGANIZATION_READ,
    Level.TEAM: Action.TEAM_READ,
    Level.USER: Action.USER_READ,
    Level.KEY: Action.KEY_READ,
}
_READS = frozenset(action for action in Action if action.endswith(".read"))
_RANK = {Role.MEMBER: 0, Role.ORGANIZATION_ADMIN: 1, Role.PLATFORM_ADMIN: 2}


def reach(principal: Principal, action: Action) -> Reach:
    """How far the caller gets with an action."""
    if "admin" not in principal.scopes and action not in _UNSCOPED:
        return Reach.NOTHING
    return POLICY[principal.role, action]


def allowed(principal: Principal, action: Action, resource: Resource) -> Verdict:
    """Whether the caller may do `action` to `resource`."""
    extent = reach(principal, action)
    if extent is Reach.NOTHING:
        return Verdict.FORBIDDEN
    if resource.level is not None and not _covers(reach(principal, _VISIBLE[resource.level]), principal, resource):
        return Verdict.HIDDEN
    if not _covers(extent, principal, resource):
        return Verdict.FORBIDDEN
    if action in _READS or principal.role is Role.PLATFORM_ADMIN:
        return Verdict.ALLOWED
    if resource.role is not None and _RANK[resource.role] > _RANK[principal.role]:
        return Verdict.FORBIDDEN
    return Verdict.ALLOWED if resource.scopes <= principal.scopes else Verdict.FORBIDDEN


def _covers(reach: Reach, principal: Principal, resource: Resource) -> bool:
    if reach is Reach.ALL:
        return True
    if reach is Reach.NOTHING or resource.level is None or resource.organization != principal.organization:
        return False
    if reach is Reach.ORGANIZATION:
        return True
    if resource.level is Level.TEAM:
        return resource.team is not None and resource.team == principal.team
    return resource.user is not None and resource.user == principal.user
