# SPDX-License-Identifier: GPL-3.0-or-later
"""The account: its instances, keys, file systems and rulesets, what is left to sell, and what was billed."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace
from math import inf
from typing import Any

from .catalogue import TYPES, Type
from .config import Config
from .limits import Limit
from .records import FileSystem, Instance, Ruleset, SshKey

__all__ = ["State"]


class State:
    """Everything that changes. Moments are cloud seconds since the epoch: `now()`."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._epoch = config.clock()
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        config = self.config
        self.random = random.Random(config.seed)  # noqa: S311 (reproducible on purpose)
        self.types: dict[str, Type] = dict(TYPES)
        self.instances: dict[str, Instance] = {}
        self.ssh_keys: dict[str, SshKey] = {}
        self.file_systems: dict[str, FileSystem] = {}
        self.rulesets: dict[str, Ruleset] = {}
        self.open_rules: list[dict[str, Any]] = []
        self.hosts: list[str] = []
        # Machines left per type and region; what is not named has no end.
        self.capacity: dict[tuple[str, str], int] = {}
        self.quota = config.quota
        self.flap = config.flap
        self.requests = Limit(config.request_interval)
        self.launches = Limit(config.launch_interval)
        self.calls: dict[str, int] = {}
        self.audit: list[dict[str, Any]] = []

    def now(self) -> float:
        """The cloud's time."""
        return self._epoch + (self.config.clock() - self._epoch) * self.config.time_scale

    def new_id(self) -> str:
        """32 hex digits."""
        return f"{self.random.getrandbits(128):032x}"

    def alive(self) -> list[Instance]:
        """Instances that are not terminated, and so are paid for."""
        now = self.now()
        return [item for item in self.instances.values() if now < item.terminated]

    def room(self, kind: str, region: str) -> bool:
        """Whether there is a machine of this type left in a region."""
        if self._flapped(kind, region):
            return False
        left = self.capacity.get((kind, region))
        if left is None:
            return True
        return left > sum(item.kind.name == kind and item.region == region for item in self.alive())

    def regions_of(self, kind: Type) -> list[str]:
        """Regions that say they have capacity for a type."""
        named = [region for name, region in self.capacity if name == kind.name]
        known = dict.fromkeys([*kind.regions, *named])
        return [region for region in known if self.room(kind.name, region)]

    def price(self, kind: str, cents: int) -> None:
        """Change a price; who runs an instance goes on paying the old one."""
        self.types[kind] = replace(self.types[kind], cents=cents)

    def address(self) -> str:
        """The first address that a test has lent and nobody uses, else one of TEST-NET-3 (RFC 5737)."""
        used = {item.ip for item in self.alive()}
        for ip in self.hosts:
            if ip not in used:
                return ip
        return f"203.0.113.{1 + len(self.instances) % 254}"

    def end(self, instance: Instance, now: float, extra: float = 0.0) -> None:
        """Begin to terminate an instance; it is gone some seconds later."""
        if instance.terminating < inf:
            return
        shortest, longest = self.config.terminate_seconds
        instance.terminating = now
        instance.terminated = now + self.random.uniform(shortest, longest) + extra

    def truth(self) -> dict[str, Any]:
        """What happened, from the records that bill."""
        now = self.now()
        rows = [self._life(item, now) for item in self.instances.values()]
        return {
            "now": now,
            "instances": rows,
            "launched": len(rows),
            "alive": sum(row["alive"] for row in rows),
            "billed_seconds": sum(row["billed_seconds"] for row in rows),
            "billed_cents": sum(row["billed_cents"] for row in rows),
            "cents_per_hour": sum(row["cents_per_hour"] for row in rows if row["alive"]),
            "peak_cents_per_hour": peak(self.instances.values()),
            "calls": dict(self.calls),
            "rate_limit_violations": {"requests": self.requests.violations, "launches": self.launches.violations},
        }

    def _life(self, item: Instance, now: float) -> dict[str, Any]:
        seconds = item.billed(now)
        return {
            "id": item.id,
            "name": item.name,
            "tags": {tag["key"]: tag["value"] for tag in item.tags},
            "type": item.kind.name,
            "region": item.region,
            "ip": item.ip,
            "image": item.image,
            "status": item.status(now, inf),
            "alive": now < item.terminated,
            "launched": item.launched,
            "terminated": None if item.terminated == inf else item.terminated,
            "cents_per_hour": item.kind.cents,
            "billed_seconds": seconds,
            # Whole cents a started second, rounded up: a bound, not the vendor's arithmetic, which is not known.
            "billed_cents": -int(-seconds * item.kind.cents // 3600),
        }

    def _flapped(self, kind: str, region: str) -> bool:
        if not self.flap:
            return False
        period = int(self.now() // self.config.flap_period)
        draw = random.Random(f"{self.config.seed}/{kind}/{region}/{period}")  # noqa: S311 (reproducible on purpose)
        return draw.random() < self.flap


def peak(instances: Iterable[Instance]) -> int:
    """The most that all instances together have cost at any moment, in cents an hour."""
    changes = [(item.launched, item.kind.cents) for item in instances]
    changes += [(item.terminated, -item.kind.cents) for item in instances if item.terminated < inf]
    total = most = 0
    for _moment, cents in sorted(changes):
        total += cents
        most = max(most, total)
    return most
