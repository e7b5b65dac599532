# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change in any release.

"""Read the gateway's tenants, and carry out a plan for them.

A key's secret is in one answer only. Before a key with a destination is asked for, a note is written beside the
destination; it goes when the secret is there. A run that finds the note of a key that exists knows that nobody has its
secret, and has a new one made.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from typing import Any

from ansible_collections.sophia.platform.plugins.module_utils import _files as files
from ansible_collections.sophia.platform.plugins.module_utils._errors import BadResponse
from ansible_collections.sophia.platform.plugins.module_utils._gateway.api import Api
from ansible_collections.sophia.platform.plugins.module_utils._gateway.model import (
    KINDS,
    Found,
    Listing,
    Place,
    body_of,
    settings_of,
)
from ansible_collections.sophia.platform.plugins.module_utils._gateway.plan import Plan, Step


class Destination:
    """A file for one secret, mode 0600, with the note of its making beside it."""

    def __init__(self, path: str, place: Place) -> None:
        self.path = path
        directory, name = os.path.split(os.path.abspath(path))
        self._directory = directory
        self._note = os.path.join(directory, f".{name}.creating")
        self._text = json.dumps(place[1], ensure_ascii=False)

    def check(self) -> None:
        files.check_directory(self._directory, "dest")

    def exists(self) -> bool:
        return os.path.exists(self.path)

    def lost(self) -> bool:
        """Return whether a making of this very key began and its secret did not get here."""
        return files.read(self._note) == self._text and not self.exists()

    def note(self) -> None:
        files.write(self._note, self._text)

    def store(self, secret: str) -> None:
        files.write(self.path, secret)
        files.remove(self._note)


def read(api: Api, names: Iterable[str] | None = None) -> dict[Place, Found]:
    """Return the tenants of the organisations named, of all without names."""
    found: dict[Place, Found] = {}
    for record in api.list("organization"):
        if names is None or record["name"] in names:
            found[("organization", (record["name"],))] = Found(record["id"], settings_of("organization", record, {}), record)
            _read_below(api, record, found)
    return found


def _read_below(api: Api, organization: dict[str, Any], found: dict[Place, Found]) -> None:
    teams: dict[str, str] = {}
    paths: dict[str, tuple[str, ...]] = {}
    for kind in KINDS[1:]:
        for record in api.list(kind, organization=organization["id"]):
            path: tuple[str, ...] = (organization["name"], record["name"])
            if kind == "team":
                teams[record["id"]] = record["name"]
            elif kind == "user":
                paths[record["id"]] = path
            elif record["user"] in paths:
                path = (*paths[record["user"]], record["name"])
            else:
                continue  # its user was deleted between the two lists
            found[(kind, path)] = Found(record["id"], settings_of(kind, record, teams), record)


def destinations(listing: Listing) -> dict[Place, Destination]:
    """Return where secrets of the listed keys go."""
    return {item.place: Destination(item.dest, item.place) for item in listing.wanted if item.dest and item.present}


def apply(api: Api, plan: Plan, found: dict[Place, Found], places: dict[Place, Destination]) -> dict[Place, str]:
    """Carry out a plan; return the secrets that were made."""
    ids = {place: item.id for place, item in found.items()}
    secrets: dict[Place, str] = {}
    for step in plan.steps:
        if step.do == "delete":
            api.delete(step.place[0], ids[step.place])
        elif step.do == "update":
            api.update(step.place[0], ids[step.place], _body(step, ids))
        elif step.place[0] == "key":
            secrets[step.place] = _secret(api, step, ids, places.get(step.place))
        else:
            ids[step.place] = api.create(step.place[0], _body(step, ids))["id"]
    return secrets


def _secret(api: Api, step: Step, ids: dict[Place, str], destination: Destination | None) -> str:
    if destination:
        destination.note()
    made = api.rotate(ids[step.place]) if step.do == "rotate" else api.create("key", _body(step, ids))
    secret = made.get("secret")
    if not isinstance(secret, str) or not secret:
        raise BadResponse("the answer has no secret")
    ids[step.place] = made["id"]
    if destination:
        destination.store(secret)
    return secret


def _body(step: Step, ids: dict[Place, str]) -> dict[str, Any]:
    kind, path = step.place
    body = body_of(step.settings)
    if kind == "user" and body.get("team") is not None:
        body["team"] = ids[("team", (path[0], body["team"]))]
    if step.do == "create":
        body["name"] = path[-1]
        if kind == "key":
            body["user"] = ids[("user", path[:2])]
        elif kind != "organization":
            body["organization"] = ids[("organization", path[:1])]
    return body
