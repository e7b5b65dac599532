# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change in any release.

"""What it takes to make a key as asked: from (wanted, what is there) to a plan. No I/O.

::

    plan(wanted, current, now) -> Plan      create | update | delete | nothing, with before, after and reasons
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ansible_collections.sophia.platform.plugins.module_utils._errors import InvalidInput, StateConflict
from ansible_collections.sophia.platform.plugins.module_utils._openrouter.model import Key, plain, stamp

IMMUTABLE = ("expires_at",)


@dataclass(frozen=True)
class Wanted:
    """A key as the user wants it. ``settings`` has only what the user set; ``guardrail_id`` None means "as it is"
    and an empty text "none"."""

    name: str
    state: str
    hash: str | None = None
    workspace_id: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    guardrail_id: str | None = None


@dataclass(frozen=True)
class Current:
    """The key that is there, with its guardrail."""

    key: Key
    guardrail_id: str | None = None


@dataclass(frozen=True)
class Plan:
    """What to do: ``action`` is none, create, update or delete.

    ``changes`` is for PATCH, ``assign`` and ``unassign`` are guardrails; ``before`` and ``after`` are for people.
    """

    action: str
    before: dict[str, Any]
    after: dict[str, Any]
    changes: dict[str, Any] = field(default_factory=dict)
    assign: str | None = None
    unassign: str | None = None

    @property
    def changed(self) -> bool:
        return self.action != "none"


def find(keys: Iterable[Key], name: str, hash: str | None) -> Key | None:
    """Return the key meant. Raises :class:`StateConflict` where the name is not enough to tell.

    With ``hash`` the name does not matter: it may be the new one.
    """
    if hash:
        found = [key for key in keys if key.hash == hash]
        if not found:
            raise StateConflict(f"there is no key with hash {hash}", code="no_such_hash")
        return found[0]
    found = [key for key in keys if key.name == name]
    if len(found) > 1:
        hashes = sorted(key.hash for key in found)
        raise StateConflict(
            f"{len(found)} keys are named {name!r}: say which by hash",
            code="ambiguous_name",
            details={"hashes": hashes},
        )
    return found[0] if found else None


def plan(wanted: Wanted, current: Current | None, now: datetime) -> Plan:
    """Decide for ``state`` present and absent. Raises :class:`InvalidInput` and :class:`StateConflict`."""
    before = describe(current)
    if wanted.state == "absent":
        return Plan("delete" if current else "none", before, {})
    if current is None:
        return _creation(wanted)
    key = current.key
    if key.expired(now):
        raise StateConflict(
            f"the key {key.name!r} expired at {stamp(key.expires_at)}; it can be rotated or removed, not revived",
            code="expired",
        )
    changes = {name: value for name, value in wanted.settings.items() if getattr(key, name) != value}
    if key.name != wanted.name:
        changes["name"] = wanted.name
    for name in IMMUTABLE:
        if name in changes:
            raise InvalidInput(
                f"{name} of the key {key.name!r} is {before[name] or 'not set'} and OpenRouter cannot change it: "
                "rotate the key, or remove it and make it anew",
                code="immutable",
            )
    assign, unassign = _guardrail(wanted.guardrail_id, current.guardrail_id)
    after = {**before, **_described(changes)}
    if assign or unassign:
        after["guardrail_id"] = assign
    action = "update" if changes or assign or unassign else "none"
    return Plan(action, before, after, changes, assign, unassign)


def _creation(wanted: Wanted) -> Plan:
    after = {
        "name": wanted.name,
        "limit": None,
        "limit_reset": None,
        "include_byok_in_limit": False,
        "disabled": False,
        "expires_at": None,
        "workspace_id": wanted.workspace_id,
        "guardrail_id": wanted.guardrail_id or None,
        **_described(wanted.settings),
    }
    return Plan("create", {}, after, assign=wanted.guardrail_id or None)


def _guardrail(wanted: str | None, current: str | None) -> tuple[str | None, str | None]:
    if wanted is None or (wanted or None) == current:
        return None, None
    return (wanted, None) if wanted else (None, current)


def describe(current: Current | None) -> dict[str, Any]:
    """Return what of a key can be wanted, as text where it is not yes or no; no key is an empty description."""
    if current is None:
        return {}
    key = current.key
    return {
        "name": key.name,
        "limit": None if key.limit is None else plain(key.limit),
        "limit_reset": key.limit_reset,
        "include_byok_in_limit": key.include_byok_in_limit,
        "disabled": key.disabled,
        "expires_at": None if key.expires_at is None else stamp(key.expires_at),
        "workspace_id": key.workspace_id,
        "guardrail_id": current.guardrail_id,
    }


def _described(settings: Mapping[str, Any]) -> dict[str, Any]:
    described = dict(settings)
    if described.get("limit") is not None:
        described["limit"] = plain(described["limit"])
    if described.get("expires_at") is not None:
        described["expires_at"] = stamp(described["expires_at"])
    return described
