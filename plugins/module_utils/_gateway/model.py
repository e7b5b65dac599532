# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change in any release.

"""Tenants as a module is given them, and as the gateway has them, in the same words. No I/O.

A resource is known by its kind and the names that lead to it. Its settings are leaves with dotted names
(``budgets.day``), so that one that is not given is simply not there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from decimal import Decimal, InvalidOperation
from typing import Any

from ansible_collections.sophia.platform.plugins.module_utils._errors import InvalidInput

KINDS = ("organization", "team", "user", "key")
PERIODS = ("day", "week", "month")
RATES = ("requests_per_minute", "tokens_per_minute")
UNLIMITED = "unlimited"
_PLAIN = {
    "organization": ("models", "disabled", "zero_data_retention", "regions"),
    "team": ("models", "disabled"),
    "user": ("models", "disabled", "email", "role", "team"),
    "key": ("models", "disabled", "scopes", "expires_at"),
}

Place = tuple[str, tuple[str, ...]]


@dataclass(frozen=True)
class Wanted:
    """A resource as it shall be. ``settings`` holds what was given; ``dest`` is where a new key's secret goes."""

    kind: str
    path: tuple[str, ...]
    settings: dict[str, Any]
    present: bool = True
    dest: str | None = None

    @property
    def place(self) -> Place:
        return self.kind, self.path


@dataclass(frozen=True)
class Found:
    """A resource as the gateway has it."""

    id: str
    settings: dict[str, Any]
    record: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Listing:
    """What a module is given: resources, parents before children, and which lists of children were given at all."""

    wanted: list[Wanted]
    complete: frozenset[Place]


def name_of(place: Place) -> str:
    """Return a place as a person reads it: ``user acme/ada``."""
    return f"{place[0]} {'/'.join(place[1])}"


def listing_of(organizations: Iterable[Mapping[str, Any]], present: bool) -> Listing:
    """Read the option ``organizations``. Raises :class:`InvalidInput` for what is said twice or makes no sense."""
    wanted: list[Wanted] = []
    complete: set[Place] = set()
    for organization in organizations:
        _read(organization, present, wanted, complete)
    seen: set[Place] = set()
    for item in wanted:
        if item.place in seen:
            raise InvalidInput(f"{name_of(item.place)} is listed twice")
        seen.add(item.place)
    order = {kind: place for place, kind in enumerate(KINDS)}
    return Listing(sorted(wanted, key=lambda item: order[item.kind]), frozenset(complete))


def _read(organization: Mapping[str, Any], present: bool, wanted: list[Wanted], complete: set[Place]) -> None:
    name = organization["name"]
    present = present and organization.get("state", "present") == "present"
    wanted.append(Wanted("organization", (name,), _settings("organization", organization), present))
    if not present:
        return
    for kind in ("team", "user"):
        if organization.get(f"{kind}s") is not None:
            complete.add((kind, (name,)))
    for team in organization.get("teams") or ():
        wanted.append(Wanted("team", (name, team["name"]), _settings("team", team), team["state"] == "present"))
        if team.get("users") is not None:
            complete.add(("user", (name,)))
        for user in team.get("users") or ():
            if user.get("team") not in (None, team["name"]):
                raise InvalidInput(f"the user {user['name']} is listed under the team {team['name']}, but says team {user['team']}")
            _read_user(name, {**user, "team": team["name"]}, wanted, complete)
    for user in organization.get("users") or ():
        _read_user(name, user, wanted, complete)


def _read_user(organization: str, user: Mapping[str, Any], wanted: list[Wanted], complete: set[Place]) -> None:
    path = (organization, user["name"])
    present = user["state"] == "present"
    wanted.append(Wanted("user", path, _settings("user", user), present))
    if not present:
        return
    if user.get("keys") is not None:
        complete.add(("key", path))
    for key in user.get("keys") or ():
        wanted.append(Wanted("key", (*path, key["name"]), _settings("key", key), key["state"] == "present", key["dest"]))


def _settings(kind: str, given: Mapping[str, Any]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    budgets = given.get("budgets") or {}
    for period in PERIODS:
        if budgets.get(period) is not None:
            settings[f"budgets.{period}"] = dollars(budgets[period], f"budgets.{period}")
    limits = given.get("limits") or {}
    for rate in RATES:
        if limits.get(rate) is not None:
            settings[f"limits.{rate}"] = limits[rate] or None
    for name in _PLAIN[kind]:
        if given.get(name) is not None:
            settings[name] = _plain(name, given[name])
    return settings


def _plain(name: str, value: Any) -> Any:
    if name in ("scopes", "models", "regions"):
        # No order is meant, and everything is the same as no restriction.
        return None if name == "models" and "*" in value else sorted(set(value))
    if name == "expires_at":
        return instant(value) if value else None
    if name in ("team", "email"):
        return value or None
    return value


def settings_of(kind: str, record: Mapping[str, Any], teams: Mapping[str, str]) -> dict[str, Any]:
    """Return all settings of a record of the API; ``teams`` are names by identifier."""
    settings: dict[str, Any] = {}
    for period in PERIODS:
        cap = record["budgets"][period]
        settings[f"budgets.{period}"] = None if cap is None else dollars(cap, "budgets")
    for rate in RATES:
        settings[f"limits.{rate}"] = record["limits"][rate]
    for name in _PLAIN[kind]:
        value = record[name]
        settings[name] = None if value is None else _plain(name, value)
    if kind == "user" and settings["team"] is not None:
        settings["team"] = teams.get(settings["team"], settings["team"])
    return settings


def body_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as the API takes them: dotted names become objects."""
    body: dict[str, Any] = {}
    for name, value in settings.items():
        outer, dot, inner = name.partition(".")
        if dot:
            body.setdefault(outer, {})[inner] = value
        else:
            body[outer] = value
    return body


def dollars(value: str, where: str) -> str | None:
    """Return an amount of USD in its shortest form, None for ``unlimited``. Raises :class:`InvalidInput`."""
    text = str(value).strip()
    if text == UNLIMITED:
        return None
    try:
        amount = Decimal(text)
    except InvalidOperation:
        amount = Decimal("NaN")
    if not amount.is_finite() or amount < 0 or amount >= 10**9 or amount != round(amount, 9):
        raise InvalidInput(f"{where}: {text!r} is not an amount of USD with at most nine decimals, nor {UNLIMITED}")
    plain = f"{amount:f}"
    return plain.rstrip("0").rstrip(".") if "." in plain else plain


def instant(value: str) -> str:
    """Return an ISO 8601 time in UTC. Raises :class:`InvalidInput` where it is none, or has no zone."""
    try:
        at = datetime.fromisoformat(value.replace("Z", "+00:00"))
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise InvalidInput(f"expires_at: {value!r} is not a time with its zone, as 2027-01-31T00:00:00Z")
    return at.astimezone(timezone.utc).isoformat().replace("+00:00", "Z")


def parents(place: Place) -> Iterator[Place]:
    """Yield the places above one, the nearest first."""
    kind, path = place
    if kind == "key":
        yield "user", path[:2]
    if kind != "organization":
        yield "organization", path[:1]
