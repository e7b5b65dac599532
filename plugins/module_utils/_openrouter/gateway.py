# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change in any release.

"""What gateways say of the keys they hold, read from their Prometheus metrics.

* ``openrouter_key_loaded{slot,hash}``: 1 for the key in each slot of the replica;
* ``openrouter_key_in_flight{hash}``: requests under way with that key.

``hash`` is the first 12 hex digits of the SHA-256 of the key string.
Source of the format: https://prometheus.io/docs/instrumenting/exposition_formats/ (text format 0.0.4).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ansible_collections.sophia.platform.plugins.module_utils._errors import PlatformError
from ansible_collections.sophia.platform.plugins.module_utils._http import Client

LOADED = "openrouter_key_loaded"
IN_FLIGHT = "openrouter_key_in_flight"

_SAMPLE = re.compile(rf"^({LOADED}|{IN_FLIGHT})(?:_total)?\s*\{{([^}}]*)\}}\s+(\S+)")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*"((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True)
class Replica:
    """One gateway. ``trouble`` says why nothing is known of it; ``loaded`` maps slot to key id."""

    url: str
    loaded: tuple[tuple[str, str], ...] = ()
    in_flight: tuple[tuple[str, int], ...] = ()
    trouble: str | None = None

    def holds(self, slot: str, id: str) -> bool:
        return (slot, id) in self.loaded

    def holds_anywhere(self, id: str) -> bool:
        return any(held == id for _slot, held in self.loaded)

    def is_rid_of(self, id: str) -> bool:
        return not self.holds_anywhere(id) and not self.requests(id)

    def requests(self, id: str) -> int:
        return sum(count for held, count in self.in_flight if held == id)


def parse(url: str, text: str) -> Replica:
    """Read a metrics page."""
    loaded: list[tuple[str, str]] = []
    in_flight: list[tuple[str, int]] = []
    for line in text.splitlines():
        match = _SAMPLE.match(line)
        if not match:
            continue
        labels = dict(_LABEL.findall(match[2]))
        try:
            value = float(match[3])
        except ValueError:
            continue
        if match[1] == LOADED and value > 0:
            loaded.append((labels.get("slot", ""), labels.get("hash", "")))
        elif match[1] == IN_FLIGHT:
            in_flight.append((labels.get("hash", ""), int(value)))
    # A page of something else must not pass for a gateway that holds no key.
    trouble = None if LOADED in text else f"it reports no {LOADED}"
    return Replica(url, tuple(sorted(loaded)), tuple(sorted(in_flight)), trouble)


class Pages:
    """The gateways that the user named, by the URL of each one's metrics."""

    def __init__(self, clients: Iterable[tuple[str, Client]]) -> None:
        self._clients = tuple(clients)

    def look(self) -> tuple[Replica, ...]:
        """Ask every gateway once; one that does not answer is reported as such, not skipped."""
        return tuple(ask(url, client) for url, client in self._clients)


def ask(url: str, client: Client, path: str = "") -> Replica:
    """Read one gateway's metrics; ``url`` is what it is called in messages."""
    try:
        text = client.request("GET", path, headers={"Accept": "text/plain"}, text=True).body
    except PlatformError as error:
        return Replica(url, trouble=error.message)
    return parse(url, text)


def missing(replicas: Iterable[Replica], good: Callable[[Replica], bool]) -> str:
    """Return which replicas are not (known to be) good and why; empty where all are."""
    return "; ".join(
        f"{replica.url}: {replica.trouble or 'not yet'}" for replica in replicas if replica.trouble or not good(replica)
    )
