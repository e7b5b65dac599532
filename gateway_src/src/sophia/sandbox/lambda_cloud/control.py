# SPDX-License-Identifier: GPL-3.0-or-later
"""`/_sandbox`: faults, the truth about what was launched and billed, reset, seed, blows of fate. No key is needed."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from .catalogue import REGIONS
from .errors import CloudError
from .faults import Faults, Rule
from .records import FileSystem, Ruleset, SshKey
from .state import State
from .wire import Answer, Request

__all__ = ["fate", "read_faults", "reset", "seed", "set_faults", "truth"]


class SeedSystem(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file system."""

    name: str
    region: str


class SeedRuleset(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A firewall ruleset."""

    name: str
    region: str
    rules: list[dict[str, Any]] = []


class Seed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /_sandbox/seed`; all is added, and nothing is taken away.

    - `hosts`: addresses of real hosts, given to instances in turn and again once an instance is terminated.
    - `ssh_keys`: name to public key.
    - `capacity`: machines per type and region, None for no end; a type that is named has no other regions then.
    - `prices`: cents an hour per type, for launches from now on.
    - `flap`: the chance that a type has no capacity in a region for a period.
    """

    hosts: list[str] = []
    ssh_keys: dict[str, str] = {}
    file_systems: list[SeedSystem] = []
    firewall_rulesets: list[SeedRuleset] = []
    capacity: dict[str, dict[str, int | None]] = {}
    prices: dict[str, int] = {}
    quota: int | None = None
    flap: float | None = None


class Fate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /_sandbox/instances/{id}`: what becomes of an instance."""

    status: Literal["active", "unhealthy", "preempted", "terminated"]


def read_faults(state: State, faults: Faults, request: Request) -> Answer:
    """`GET /_sandbox/faults`: the rules with their counters."""
    return Answer.of(
        {"data": [{"rule": armed.rule, "seen": armed.seen, "struck": armed.struck} for armed in faults.armed]}
    )


def set_faults(state: State, faults: Faults, request: Request) -> Answer:
    """`POST /_sandbox/faults`: replace all rules; an empty list ends all faults."""
    faults.set(request.read(list[Rule]))
    return read_faults(state, faults, request)


def truth(state: State, faults: Faults, request: Request) -> Answer:
    """`GET /_sandbox/truth`: every instance ever launched, what was billed, limits that were run into.

    `?user_data=1` adds what each was launched with, which the vendor never shows again.
    """
    told = state.truth()
    if request.query.get("user_data") == "1":
        for row in told["instances"]:
            row["user_data"] = state.instances[row["id"]].user_data
    return Answer.of(told)


def reset(state: State, faults: Faults, request: Request) -> Answer:
    """`POST /_sandbox/reset`: forget everything."""
    faults.set([])
    state.reset()
    return Answer.of({"reset": True})


def seed(state: State, faults: Faults, request: Request) -> Answer:
    """`POST /_sandbox/seed`: add what a test needs."""
    body = request.read(Seed)
    for name in [item.region for item in body.file_systems] + [item.region for item in body.firewall_rulesets]:
        if name not in REGIONS:
            raise CloudError("global/invalid-parameters", f"{name} is no region")
    for kind in {*body.capacity, *body.prices}:
        if kind not in state.types:
            raise CloudError("global/invalid-parameters", f"{kind} is no instance type")
    state.hosts += [ip for ip in body.hosts if ip not in state.hosts]
    _seed_keys(state, body.ssh_keys)
    made: dict[str, dict[str, str]] = {"file_systems": {}, "firewall_rulesets": {}}
    for item in body.file_systems:
        system = FileSystem(state.new_id(), item.name, item.region, state.now())
        state.file_systems[system.id] = system
        made["file_systems"][item.name] = system.id
    for rules in body.firewall_rulesets:
        ruleset = Ruleset(state.new_id(), rules.name, rules.region, rules.rules, state.now())
        state.rulesets[ruleset.id] = ruleset
        made["firewall_rulesets"][f"{rules.name}/{rules.region}"] = ruleset.id
    _seed_market(state, body)
    return Answer.of({"data": made})


def fate(state: State, faults: Faults, request: Request, instance_id: str) -> Answer:
    """`POST /_sandbox/instances/{id}`: from now on it is so; `terminated` ends it at once."""
    instance = state.instances.get(instance_id)
    if instance is None:
        raise CloudError("global/object-does-not-exist")
    now = state.now()
    status = request.read(Fate).status
    if status == "terminated":
        instance.terminating = min(instance.terminating, now)
        instance.terminated = min(instance.terminated, now)
    else:
        instance.became = (now, status)
    return Answer.of({"data": instance.view(now, state.config.linger_seconds)})


def _seed_keys(state: State, keys: dict[str, str]) -> None:
    for name, public_key in keys.items():
        known = next((item.id for item in state.ssh_keys.values() if item.name == name), None)
        key = SshKey(known or state.new_id(), name, public_key)
        state.ssh_keys[key.id] = key


def _seed_market(state: State, body: Seed) -> None:
    for kind, regions in body.capacity.items():
        # What is not named is sold out.
        for name in REGIONS:
            state.capacity[kind, name] = 0
        for name, count in regions.items():
            state.capacity[kind, name] = 1_000_000 if count is None else count
    for kind, cents in body.prices.items():
        state.price(kind, cents)
    if body.quota is not None:
        state.quota = body.quota
    if body.flap is not None:
        state.flap = body.flap
