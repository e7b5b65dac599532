# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change in any release.

"""From tenants as they shall be and as they are to the steps between. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.sophia.platform.plugins.module_utils._errors import InvalidInput
from ansible_collections.sophia.platform.plugins.module_utils._gateway.model import (
    KINDS,
    Found,
    Listing,
    Place,
    Wanted,
    name_of,
    parents,
)


@dataclass(frozen=True)
class Step:
    """One call. ``do`` is create, update, rotate or delete; ``settings`` is what it sets."""

    do: str
    place: Place
    settings: dict[str, Any]
    id: str | None = None
    dest: str | None = None


@dataclass(frozen=True)
class Plan:
    """The steps in their order, and the tenants that they change, before and after, by name."""

    steps: list[Step]
    before: dict[str, dict[str, Any]]
    after: dict[str, dict[str, Any]]

    @property
    def changed(self) -> bool:
        return bool(self.steps)


def plan(listing: Listing, found: Mapping[Place, Found], *, purge: bool = False, lost: Iterable[Place] = ()) -> Plan:
    """Return what has to be done. ``lost`` are keys whose secret an earlier run made and could not keep.

    Raises :class:`InvalidInput` where a user's team neither exists nor is listed.
    """
    lost = frozenset(lost)
    _check_teams(listing, found)
    making: list[Step] = []
    for item in listing.wanted:
        if item.present:
            making += _step(item, found.get(item.place), item.place in lost)
    gone = _gone(listing, found, purge)
    steps = making + [Step("delete", place, {}, found[place].id) for place in gone]
    return Plan(steps, *_sides(steps, found))


def _step(item: Wanted, found: Found | None, lost: bool) -> list[Step]:
    if found is None:
        return [Step("create", item.place, item.settings, None, item.dest)]
    changes = {name: value for name, value in item.settings.items() if found.settings[name] != value}
    steps = [Step("update", item.place, changes, found.id)] if changes else []
    return [*steps, Step("rotate", item.place, {}, found.id, item.dest)] if lost else steps


def _gone(listing: Listing, found: Mapping[Place, Found], purge: bool) -> list[Place]:
    """Return what is to be deleted, children before parents; what goes with its parent is not named."""
    gone = {item.place for item in listing.wanted if not item.present and item.place in found}
    if purge:
        listed = {item.place for item in listing.wanted}
        for place in found:
            kind, path = place
            if place not in listed and (kind, path[:-1]) in listing.complete:
                gone.add(place)
    named = [place for place in gone if not any(parent in gone for parent in parents(place))]
    return sorted(named, key=lambda place: (-KINDS.index(place[0]), place[1]))


def _check_teams(listing: Listing, found: Mapping[Place, Found]) -> None:
    listed = {item.place: item.present for item in listing.wanted}
    for item in listing.wanted:
        team = item.settings.get("team")
        if not item.present or item.kind != "user" or team is None:
            continue
        place = ("team", (item.path[0], team))
        if not listed.get(place, place in found):
            raise InvalidInput(f"{name_of(item.place)}: there is no team {team!r} in {item.path[0]!r}")


def _sides(steps: Iterable[Step], found: Mapping[Place, Found]) -> tuple[dict[str, Any], dict[str, Any]]:
    before: dict[str, dict[str, Any]] = {}
    after: dict[str, dict[str, Any]] = {}
    for step in steps:
        name = name_of(step.place)
        old = found[step.place].settings if step.place in found else None
        if old is not None:
            before.setdefault(name, dict(old))
        if step.do == "delete":
            continue
        shown = after.setdefault(name, dict(old or {}))
        shown.update(step.settings)
        if step.do == "rotate":
            shown["secret"] = "new"
    return before, after


@dataclass(frozen=True)
class FlagPlan:
    """What becomes of one flag. ``action`` is none, create, update or delete; ``body`` goes with a write."""

    action: str
    before: dict[str, Any]
    after: dict[str, Any]
    version: int = 0

    @property
    def changed(self) -> bool:
        return self.action != "none"

    def body(self) -> dict[str, Any]:
        return {**self.after, "version": self.version}


FLAG_SETTINGS = ("enabled", "percentage", "organizations", "values", "description")
_NEW_FLAG: dict[str, Any] = {"enabled": False, "percentage": 100.0, "organizations": {}, "values": [], "description": ""}


def plan_flag(present: bool, given: Mapping[str, Any], flag: Mapping[str, Any] | None) -> FlagPlan:
    """Return what has to be done to one flag; settings that are None stay as they are."""
    version = flag["version"] if flag else 0
    before = {name: flag[name] for name in FLAG_SETTINGS} if flag else {}
    if not present:
        return FlagPlan("delete" if flag else "none", before, {}, version)
    after = {**_NEW_FLAG, **before, **{name: value for name, value in given.items() if value is not None}}
    action = "none" if before == after else "update" if flag else "create"
    return FlagPlan(action, before, after, version)
