# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change in any release.

"""Which paths network policies leave open (networking.k8s.io/v1, "NetworkPolicy").

A pod that no policy selects for a direction is open in that direction; else what is not allowed by one of them is cut.
A path is open when the sender's egress and the receiver's ingress both are.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Policy = Mapping[str, Any]


@dataclass(frozen=True)
class Endpoint:
    """A pod by namespace and labels, or an address outside (`namespace` None). `ports` are the pod's, by name."""

    name: str
    namespace: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    namespace_labels: Mapping[str, str] = field(default_factory=dict)
    address: str = ""
    ports: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Path:
    """Something that has to get through: from, to, and the port at the receiver."""

    source: Endpoint
    target: Endpoint
    port: int
    protocol: str = "TCP"

    def __str__(self) -> str:
        return f"{self.source.name} to {self.target.name} on {self.protocol} {self.port}"


def cuts(policies: Sequence[Policy], path: Path) -> list[str]:
    """Return what cuts the path, one line a direction; empty where it is open."""
    found = []
    for direction, pod, peer in (("egress", path.source, path.target), ("ingress", path.target, path.source)):
        selecting = [policy for policy in policies if _applies(policy, pod, direction)]
        if selecting and not any(_allows(policy, direction, peer, path) for policy in selecting):
            names = ", ".join(sorted(policy["metadata"]["name"] for policy in selecting))
            found.append(f"{direction} of {pod.name} is limited by {names} in {pod.namespace}, none of which allows it")
    return found


def _applies(policy: Policy, pod: Endpoint, direction: str) -> bool:
    if pod.namespace is None or policy["metadata"].get("namespace", "default") != pod.namespace:
        return False
    spec = policy.get("spec") or {}
    # Without policyTypes it is about ingress, and about egress where it has such rules.
    types = spec.get("policyTypes") or (["Ingress", "Egress"] if spec.get("egress") else ["Ingress"])
    return direction.capitalize() in types and selects(spec.get("podSelector") or {}, pod.labels)


def _allows(policy: Policy, direction: str, peer: Endpoint, path: Path) -> bool:
    spec = policy["spec"]
    namespace = policy["metadata"].get("namespace", "default")
    side = "from" if direction == "ingress" else "to"
    return any(
        _peers(rule.get(side) or [], peer, namespace) and _ports(rule.get("ports") or [], path) for rule in spec.get(direction) or []
    )


def _peers(peers: Iterable[Mapping[str, Any]], peer: Endpoint, namespace: str) -> bool:
    peers = list(peers)
    return not peers or any(_peer(item, peer, namespace) for item in peers)


def _peer(item: Mapping[str, Any], peer: Endpoint, namespace: str) -> bool:
    if "ipBlock" in item:
        return bool(peer.address) and _in_block(item["ipBlock"], peer.address)
    if peer.namespace is None:
        return False
    if item.get("namespaceSelector") is None:
        if peer.namespace != namespace:
            return False
    elif not selects(item["namespaceSelector"], {"kubernetes.io/metadata.name": peer.namespace, **peer.namespace_labels}):
        return False
    return selects(item.get("podSelector") or {}, peer.labels)


def _in_block(block: Mapping[str, Any], address: str) -> bool:
    ip = ipaddress.ip_address(address)

    def inside(cidr: str) -> bool:
        network = ipaddress.ip_network(cidr, strict=False)
        return network.version == ip.version and ip in network

    return inside(block["cidr"]) and not any(inside(cidr) for cidr in block.get("except") or [])


def _ports(ports: Iterable[Mapping[str, Any]], path: Path) -> bool:
    ports = list(ports)
    return not ports or any(_port(item, path) for item in ports)


def _port(item: Mapping[str, Any], path: Path) -> bool:
    if (item.get("protocol") or "TCP") != path.protocol:
        return False
    first = item.get("port")
    if first is None:
        return True
    if isinstance(first, str) and not first.isdigit():
        return path.target.ports.get(first) == path.port
    return int(first) <= path.port <= int(item.get("endPort") or first)


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a label selector matches (API reference, "LabelSelector"); the empty one matches everything."""
    if any(labels.get(name) != value for name, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(_matches(expression, labels) for expression in selector.get("matchExpressions") or [])


def _matches(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    present = expression["key"] in labels
    inside = labels.get(expression["key"]) in (expression.get("values") or [])
    return {"In": present and inside, "NotIn": not inside, "Exists": present, "DoesNotExist": not present}[expression["operator"]]
