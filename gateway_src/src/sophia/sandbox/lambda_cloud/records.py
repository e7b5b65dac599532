# SPDX-License-Identifier: GPL-3.0-or-later
"""What the account has. An instance's status is a function of time, so any moment of its life can be shown again."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import inf
from typing import Any

from .catalogue import REGIONS, Type

__all__ = ["FileSystem", "Instance", "Ruleset", "SshKey", "iso", "region", "shape"]


def iso(moment: float) -> str:
    """Seconds since the epoch as ISO 8601."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def region(name: str) -> dict[str, str]:
    """A region as the vendor shows it."""
    return {"name": name, "description": REGIONS[name]}


def shape(kind: Type) -> dict[str, Any]:
    """An instance type as the vendor shows it."""
    return {
        "name": kind.name,
        "description": kind.description,
        "gpu_description": kind.gpu,
        "price_cents_per_hour": kind.cents,
        "specs": {
            "vcpus": kind.vcpus,
            "memory_gib": kind.memory,
            "storage_gib": kind.storage,
            "gpus": kind.gpus,
        },
    }


@dataclass(slots=True)
class Instance:
    """An instance that was launched; moments in cloud seconds since the epoch.

    `became` is what a control call made of it, and when. `terminating` and `terminated` are moments, infinite until
    somebody terminates it.
    """

    id: str
    launched: float
    boots_in: float
    healthy: bool
    kind: Type
    region: str
    ip: str
    private_ip: str
    token: str
    name: str | None = None
    hostname: str | None = None
    ssh_keys: list[str] = field(default_factory=list)
    file_systems: list[str] = field(default_factory=list)
    mounts: list[dict[str, str]] = field(default_factory=list)
    tags: list[dict[str, str]] = field(default_factory=list)
    rulesets: list[str] = field(default_factory=list)
    image: str | None = None
    user_data: str | None = None
    became: tuple[float, str] | None = None
    terminating: float = inf
    terminated: float = inf

    def status(self, moment: float, linger: float) -> str | None:
        """Its status at a moment; None before it was launched and once the vendor has forgotten it."""
        if moment < self.launched or moment >= self.terminated + linger:
            return None
        if moment >= self.terminated:
            return "terminated"
        if moment >= self.terminating:
            return "terminating"
        if self.became is not None and moment >= self.became[0]:
            return self.became[1]
        if moment < self.launched + self.boots_in:
            return "booting"
        return "active" if self.healthy else "unhealthy"

    def billed(self, moment: float) -> float:
        """Seconds that are paid for: from the launch until it is terminated."""
        return max(0.0, min(moment, self.terminated) - self.launched)

    def view(self, moment: float, linger: float) -> dict[str, Any] | None:
        """The instance as the vendor shows it; what is not known yet is left out."""
        status = self.status(moment, linger)
        if status is None:
            return None
        up = status in ("active", "unhealthy")
        shown: dict[str, Any] = {
            "id": self.id,
            "status": status,
            "ssh_key_names": self.ssh_keys,
            "file_system_names": self.file_systems,
            "region": region(self.region),
            "instance_type": shape(self.kind),
            "actions": _actions(status),
        }
        # An address comes late in the boot.
        if up or (status == "booting" and moment >= self.launched + 0.8 * self.boots_in):
            shown |= {"ip": self.ip, "private_ip": self.private_ip}
        if up:
            host = self.id[:12]
            shown |= {
                "jupyter_token": self.token,
                "jupyter_url": f"https://{host}.lambdaspaces.invalid/?token={self.token}",
            }
        optional = {"name": self.name, "hostname": self.hostname, "file_system_mounts": self.mounts, "tags": self.tags}
        shown |= {key: value for key, value in optional.items() if value}
        if self.rulesets:
            shown["firewall_rulesets"] = [{"id": item} for item in self.rulesets]
        return shown


def _actions(status: str) -> dict[str, dict[str, Any]]:
    if status == "booting":
        refused = {"available": False, "reason_code": "vm-has-not-launched", "reason_description": "It is booting."}
    elif status in ("terminating", "terminated", "preempted"):
        refused = {"available": False, "reason_code": "vm-is-terminating", "reason_description": "It is terminating."}
    else:
        return {name: {"available": True} for name in ("migrate", "rebuild", "restart", "cold_reboot", "terminate")}
    # What is paid for can be ended at any time.
    ending = {"available": True} if status == "booting" else refused
    return {"migrate": refused, "rebuild": refused, "restart": refused, "cold_reboot": refused, "terminate": ending}


@dataclass(frozen=True, slots=True)
class SshKey:
    """A registered public key."""

    id: str
    name: str
    public_key: str

    def view(self) -> dict[str, str]:
        """As the vendor shows it."""
        return {"id": self.id, "name": self.name, "public_key": self.public_key}


@dataclass(frozen=True, slots=True)
class FileSystem:
    """A network file system in one region."""

    id: str
    name: str
    region: str
    created: float

    def view(self, in_use: bool) -> dict[str, Any]:
        """As the vendor shows it."""
        return {
            "id": self.id,
            "name": self.name,
            "mount_point": f"/lambda/nfs/{self.name}",
            "created": iso(self.created),
            "created_by": {"id": "0" * 32, "email": "sandbox@example.com", "status": "active"},
            "is_in_use": in_use,
            "region": region(self.region),
            "bytes_used": 0,
        }


@dataclass(frozen=True, slots=True)
class Ruleset:
    """A set of firewall rules; `global` has no region."""

    id: str
    name: str
    region: str | None
    rules: list[dict[str, Any]]
    created: float

    def view(self, instances: list[str]) -> dict[str, Any]:
        """As the vendor shows it."""
        shown: dict[str, Any] = {"id": self.id, "name": self.name, "rules": self.rules}
        if self.region is not None:
            shown |= {"region": region(self.region), "created": iso(self.created), "instance_ids": instances}
        return shown
