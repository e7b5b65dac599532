# SPDX-License-Identifier: GPL-3.0-or-later
"""What instances are launched with: SSH keys, file systems, firewall rules, images, regions; and the audit log."""

from __future__ import annotations

import base64
import ipaddress
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from .catalogue import IMAGES, REGIONS
from .errors import CloudError
from .faults import Faults
from .records import FileSystem, Ruleset, SshKey, iso, region
from .state import State
from .wire import Answer, Request

__all__ = [
    "add_file_system",
    "add_key",
    "add_ruleset",
    "change_global",
    "change_ruleset",
    "delete_file_system",
    "delete_key",
    "delete_ruleset",
    "events",
    "file_systems",
    "global_ruleset",
    "images",
    "keys",
    "read_ruleset",
    "regions",
    "replace_rules",
    "rules",
    "rulesets",
]

_CREATED = 1_782_864_000.0  # 2026-07-01, when the images were made
EMPTY: dict[str, Any] = {}


class NewKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Without `public_key` the vendor makes a pair and shows the private half once."""

    name: Annotated[str, Meta(min_length=1, max_length=64)]
    public_key: Annotated[str, Meta(min_length=1, max_length=4096)] | None = None


class NewFileSystem(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /filesystems`."""

    name: Annotated[str, Meta(pattern=r"^[a-zA-Z]+[0-9a-zA-Z-]*$", min_length=1, max_length=60)]
    region: str


class FirewallRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """`port_range` is required except for icmp, where it is forbidden."""

    protocol: Literal["tcp", "udp", "icmp", "all"]
    source_network: str
    description: Annotated[str, Meta(max_length=128)] = ""
    port_range: tuple[int, int] | None = None


class NewRuleset(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /firewall-rulesets`."""

    name: Annotated[str, Meta(min_length=1, max_length=64)]
    region: str
    rules: list[FirewallRule] = []


class RulesetChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `PATCH /firewall-rulesets/{id}`."""

    name: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    rules: list[FirewallRule] | None = None


class Rules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `PUT /firewall-rules`."""

    data: list[FirewallRule]


def regions(state: State, faults: Faults, request: Request) -> Answer:
    """`GET /regions`."""
    return Answer.of({"data": [region(name) for name in REGIONS]})


def images(state: State, faults: Faults, request: Request) -> Answer:
    """`GET /images`: one row a region."""
    return Answer.of(
        {
            "data": [
                {
                    "id": item.id,
                    "created_time": iso(_CREATED),
                    "updated_time": iso(_CREATED),
                    "name": item.name,
                    "description": item.name,
                    "family": item.family,
                    "version": item.version,
                    "architecture": item.architecture,
                    "region": region(item.region),
                }
                for item in IMAGES.values()
            ]
        }
    )


def keys(state: State, faults: Faults, request: Request) -> Answer:
    """`GET /ssh-keys`."""
    return Answer.of({"data": [item.view() for item in state.ssh_keys.values()]})


def add_key(state: State, faults: Faults, request: Request) -> Answer:
    """`POST /ssh-keys`. What a name in use gets is not documented; here it is global/duplicate."""
    body = request.read(NewKey)
    if any(item.name == body.name for item in state.ssh_keys.values()):
        raise CloudError("global/duplicate")
    material = base64.b64encode(state.random.randbytes(32)).decode()
    key = SshKey(state.new_id(), body.name, body.public_key or f"ssh-ed25519 {material} {body.name}")
    state.ssh_keys[key.id] = key
    shown = key.view()
    if body.public_key is None:
        shown["private_key"] = f"-----BEGIN OPENSSH PRIVATE KEY-----\n{material}\n-----END OPENSSH PRIVATE KEY-----\n"
    return Answer.of({"data": shown})


def delete_key(state: State, faults: Faults, request: Request, key_id: str) -> Answer:
    """`DELETE /ssh-keys/{id}`."""
    if state.ssh_keys.pop(key_id, None) is None:
        raise CloudError("global/object-does-not-exist")
    return Answer.of({"data": EMPTY})


def file_systems(state: State, faults: Faults, request: Request) -> Answer:
    """`GET /file-systems`, with a hyphen."""
    rows = [item.view(bool(_users(state, item))) for item in state.file_systems.values()]
    return Answer.of({"data": rows})


def add_file_system(state: State, faults: Faults, request: Request) -> Answer:
    """`POST /filesystems`, without a hyphen."""
    body = request.read(NewFileSystem)
    if body.region not in REGIONS:
        raise CloudError("global/invalid-parameters")
    if any(item.name == body.name for item in state.file_systems.values()):
        raise CloudError("global/duplicate")
    made = FileSystem(state.new_id(), body.name, body.region, state.now())
    state.file_systems[made.id] = made
    return Answer.of({"data": made.view(False)})


def delete_file_system(state: State, faults: Faults, request: Request, system_id: str) -> Answer:
    """`DELETE /filesystems/{id}`."""
    system = state.file_systems.get(system_id)
    if system is None:
        raise CloudError("global/object-does-not-exist")
    if _users(state, system):
        raise CloudError("filesystems/filesystem-in-use")
    del state.file_systems[system_id]
    return Answer.of({"data": {"deleted_ids": [system_id]}})


def rules(state: State, faults: Faults, request: Request) -> Answer:
    """`GET /firewall-rules`: the account's old rules."""
    return Answer.of({"data": state.open_rules})


def replace_rules(state: State, faults: Faults, request: Request) -> Answer:
    """`PUT /firewall-rules`: replaces all."""
    state.open_rules = [_rule(item) for item in request.read(Rules).data]
    return rules(state, faults, request)


def rulesets(state: State, faults: Faults, request: Request) -> Answer:
    """`GET /firewall-rulesets`."""
    return Answer.of({"data": [_ruleset(state, item) for item in state.rulesets.values()]})


def add_ruleset(state: State, faults: Faults, request: Request) -> Answer:
    """`POST /firewall-rulesets`."""
    body = request.read(NewRuleset)
    if body.region not in REGIONS:
        raise CloudError("global/invalid-parameters")
    if any(item.name == body.name and item.region == body.region for item in state.rulesets.values()):
        raise CloudError("global/duplicate")
    made = Ruleset(state.new_id(), body.name, body.region, [_rule(item) for item in body.rules], state.now())
    state.rulesets[made.id] = made
    return Answer.of({"data": _ruleset(state, made)})


def read_ruleset(state: State, faults: Faults, request: Request, ruleset_id: str) -> Answer:
    """`GET /firewall-rulesets/{id}`."""
    return Answer.of({"data": _ruleset(state, _find(state, ruleset_id))})


def change_ruleset(state: State, faults: Faults, request: Request, ruleset_id: str) -> Answer:
    """`PATCH /firewall-rulesets/{id}`."""
    old = _find(state, ruleset_id)
    body = request.read(RulesetChange)
    changed = Ruleset(
        old.id,
        body.name or old.name,
        old.region,
        old.rules if body.rules is None else [_rule(item) for item in body.rules],
        old.created,
    )
    state.rulesets[old.id] = changed
    return Answer.of({"data": _ruleset(state, changed)})


def delete_ruleset(state: State, faults: Faults, request: Request, ruleset_id: str) -> Answer:
    """`DELETE /firewall-rulesets/{id}`."""
    if _guarded(state, _find(state, ruleset_id)):
        raise CloudError("firewall-rulesets/firewall-ruleset-in-use")
    del state.rulesets[ruleset_id]
    return Answer.of({"data": EMPTY})


def global_ruleset(state: State, faults: Faults, request: Request) -> Answer:
    """`GET /firewall-rulesets/global`."""
    return Answer.of({"data": Ruleset("global", "Global", None, state.open_rules, 0.0).view([])})


def change_global(state: State, faults: Faults, request: Request) -> Answer:
    """`PATCH /firewall-rulesets/global`."""
    body = request.read(RulesetChange)
    if body.rules is not None:
        state.open_rules = [_rule(item) for item in body.rules]
    return global_ruleset(state, faults, request)


def events(state: State, faults: Faults, request: Request) -> Answer:
    """`GET /audit-events`: the latest first, 100 a page."""
    token = request.query.get("page_token", "0")
    if not token.isdigit():
        raise CloudError("global/invalid-parameters")
    start = int(token)
    rows = state.audit[::-1]
    page: dict[str, Any] = {"data": rows[start : start + 100]}
    if start + 100 < len(rows):
        page["page_token"] = str(start + 100)
    return Answer.of(page)


def _find(state: State, ruleset_id: str) -> Ruleset:
    if ruleset_id not in state.rulesets:
        raise CloudError("global/object-does-not-exist")
    return state.rulesets[ruleset_id]


def _guarded(state: State, ruleset: Ruleset) -> list[str]:
    return [item.id for item in state.alive() if ruleset.id in item.rulesets]


def _ruleset(state: State, ruleset: Ruleset) -> dict[str, Any]:
    return ruleset.view(_guarded(state, ruleset))


def _users(state: State, system: FileSystem) -> list[str]:
    return [item.id for item in state.alive() if system.name in item.file_systems]


def _rule(rule: FirewallRule) -> dict[str, Any]:
    if (rule.port_range is None) != (rule.protocol == "icmp"):
        raise CloudError("global/invalid-parameters", "port_range is required, except for icmp, where it is forbidden.")
    try:
        network = ipaddress.ip_network(rule.source_network)
    except ValueError as error:
        raise CloudError("global/invalid-parameters", f"source_network: {error}") from error
    shown: dict[str, Any] = {"protocol": rule.protocol, "source_network": str(network)}
    if rule.port_range is not None:
        shown["port_range"] = list(rule.port_range)
    return shown | {"description": rule.description}
