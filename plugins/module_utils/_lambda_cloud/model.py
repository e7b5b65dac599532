# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change in any release.

"""What Lambda Cloud describes, and how a pool's hosts are told from others. No I/O.

A host's identity is its name, ``<pool>-<ordinal>-<spec8>``, and the tags it was launched with; the vendor has no
idempotency key and no creation time. ``spec8`` digests what an instance cannot change after its launch and never shows
again (``user_data``), so a change of it is seen in the name.

Money is in whole cents an hour, as the vendor has it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import ROUND_FLOOR, Decimal, InvalidOperation
from typing import Any

from ansible_collections.sophia.platform.plugins.module_utils._errors import BadResponse, InvalidInput

POOL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")
_NAME = re.compile(r"(?P<pool>[a-z0-9-]+)-(?P<ordinal>\d{1,5})-(?P<spec>[0-9a-f]{8})")

TAG_POOL = "sophia-pool"
TAG_ORDINAL = "sophia-ordinal"
TAG_SPEC = "sophia-spec"
TAG_LAUNCH = "sophia-launch"
TAG_CREATED = "sophia-created"
# What the vendor's schema allows, version 1.10.0.
_TAG_KEY = re.compile(r"[a-z][a-z0-9:-]{1,54}")
_TAG_VALUE_MAX = 128


@dataclass(frozen=True)
class Instance:
    """An instance as listed. ``cents`` an hour for the whole machine; ``terminable`` is what the vendor says of it."""

    id: str
    name: str
    status: str
    type: str
    region: str
    cents: int
    gpus: int = 0
    ip: str | None = None
    private_ip: str | None = None
    hostname: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    ssh_keys: tuple[str, ...] = ()
    file_systems: tuple[str, ...] = ()
    terminable: bool = True

    def as_result(self) -> dict[str, Any]:
        """Return what may be shown: everything but the secrets of the notebook server."""
        return {
            "id": self.id,
            "name": self.name,
            "status": self.status,
            "instance_type": self.type,
            "region": self.region,
            "price_per_hour": usd(self.cents),
            "gpus": self.gpus,
            "ip": self.ip,
            "private_ip": self.private_ip,
            "hostname": self.hostname,
            "tags": dict(self.tags),
            "ssh_keys": list(self.ssh_keys),
            "filesystems": list(self.file_systems),
        }


@dataclass(frozen=True)
class Offer:
    """An instance type on sale, and the regions that say they have some."""

    type: str
    cents: int
    gpus: int
    description: str
    regions: tuple[str, ...]
    specs: Mapping[str, Any] = field(default_factory=dict)

    def as_result(self) -> dict[str, Any]:
        return {
            "name": self.type,
            "description": self.description,
            "price_per_hour": usd(self.cents),
            "gpus": self.gpus,
            "specs": dict(self.specs),
            "regions_with_capacity": list(self.regions),
        }


@dataclass(frozen=True)
class Place:
    """Something that is in one region: a file system or a firewall ruleset."""

    id: str
    name: str
    region: str


def usd(cents: int) -> str:
    """Return cents as dollars with two digits."""
    return f"{Decimal(cents) / 100:.2f}"


def cents_of(text: str | None, option: str) -> int | None:
    """Return dollars as whole cents, rounded down: it is an upper bound. Raises :class:`InvalidInput`."""
    if text is None:
        return None
    try:
        amount = Decimal(text)
        if not amount.is_finite() or amount < 0:
            raise InvalidOperation
    except InvalidOperation:
        raise InvalidInput(f"{option}: {text!r} is no amount of US dollars") from None
    return int((amount * 100).to_integral_value(ROUND_FLOOR))


def name_of(pool: str, ordinal: int, spec: str) -> str:
    return f"{pool}-{ordinal}-{spec}"


@dataclass(frozen=True)
class Identity:
    """What name and tags say of an instance: its pool, its place in it, and what it was made to."""

    pool: str
    ordinal: int
    spec: str


def identity(instance: Instance) -> Identity | None:
    """Read an instance's tags, which last as long as it does; a name can be changed by anybody."""
    tags = instance.tags
    if TAG_POOL not in tags:
        return None
    ordinal = tags.get(TAG_ORDINAL, "")
    if not (ordinal.isascii() and ordinal.isdigit()):
        return None
    return Identity(tags[TAG_POOL], int(ordinal), tags.get(TAG_SPEC, ""))


def named_alike(instance: Instance, pool: str) -> bool:
    """Return whether an instance has a name of the pool without being tagged as its own."""
    found = _NAME.fullmatch(instance.name)
    return found is not None and found["pool"] == pool and identity(instance) is None


def spec_of(parts: Mapping[str, Any]) -> str:
    """Digest what a host is made to, to eight hex digits."""
    canonical = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:8]


def check_tags(tags: Mapping[str, Any]) -> dict[str, str]:
    """Return tags as text. Raises :class:`InvalidInput` for what the vendor would not take or the pool needs."""
    checked: dict[str, str] = {}
    for key, value in tags.items():
        text = str(value)
        if not _TAG_KEY.fullmatch(key) or len(text) > _TAG_VALUE_MAX:
            raise InvalidInput(f"tags: {key}: a key is like ^[a-z][a-z0-9-:]+$ of at most 55, a value has at most 128 characters")
        if key.startswith("sophia-"):
            raise InvalidInput(f"tags: {key}: keys that begin with sophia- are the pool's own")
        checked[key] = text
    return checked


def parse_instance(raw: Any) -> Instance:
    """Read an instance. Raises :class:`BadResponse`."""
    try:
        kind = raw["instance_type"]
        ending = (raw.get("actions") or {}).get("terminate") or {}
        return Instance(
            id=_text(raw["id"]),
            name=raw.get("name") or "",
            status=_text(raw["status"]),
            type=_text(kind["name"]),
            region=_text(raw["region"]["name"]),
            cents=_count(kind["price_cents_per_hour"]),
            gpus=_count((kind.get("specs") or {}).get("gpus", 0)),
            ip=raw.get("ip"),
            private_ip=raw.get("private_ip"),
            hostname=raw.get("hostname"),
            tags={tag["key"]: tag["value"] for tag in raw.get("tags") or []},
            ssh_keys=tuple(raw.get("ssh_key_names") or ()),
            file_systems=tuple(raw.get("file_system_names") or ()),
            terminable=bool(ending.get("available", True)),
        )
    except (KeyError, TypeError, AttributeError):
        raise BadResponse("an instance of another shape than documented") from None


def parse_offers(raw: Any) -> tuple[Offer, ...]:
    """Read the map of instance types. Raises :class:`BadResponse`."""
    try:
        return tuple(
            Offer(
                type=_text(item["instance_type"]["name"]),
                cents=_count(item["instance_type"]["price_cents_per_hour"]),
                gpus=_count((item["instance_type"].get("specs") or {}).get("gpus", 0)),
                description=item["instance_type"].get("description") or "",
                regions=tuple(_text(region["name"]) for region in item["regions_with_capacity_available"]),
                specs=item["instance_type"].get("specs") or {},
            )
            for item in raw.values()
        )
    except (KeyError, TypeError, AttributeError):
        raise BadResponse("an instance type of another shape than documented") from None


def parse_places(raw: Iterable[Any]) -> tuple[Place, ...]:
    """Read file systems or rulesets. Raises :class:`BadResponse`."""
    try:
        return tuple(Place(_text(item["id"]), _text(item["name"]), _text(item["region"]["name"])) for item in raw)
    except (KeyError, TypeError, AttributeError):
        raise BadResponse("a file system or ruleset of another shape than documented") from None


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError
    return value


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError
    return value
