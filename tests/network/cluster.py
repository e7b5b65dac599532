# SPDX-License-Identifier: GPL-3.0-or-later
"""What is in the cluster: pods by the names that the table knows them by, and the policies."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..testbed.shell import output
from .table import Port

__all__ = ["OUTSIDE", "Kubectl", "Peer", "absent", "peers", "representatives"]


@dataclass(frozen=True)
class Peer:
    """One end of a path. Without a namespace it is an address outside the cluster."""

    name: str
    address: str
    namespace: str = ""
    pod: str = ""
    labels: Mapping[str, str] | None = None
    namespace_labels: Mapping[str, str] | None = None
    ports: tuple[tuple[Port, str], ...] = ()


# Documentation's own addresses (RFC 5737) stand for the internet; a private one for the neighbourhood; the last for a cloud's metadata.
OUTSIDE = (Peer("internet", "203.0.113.7"), Peer("private network", "192.168.77.7"), Peer("cloud metadata", "169.254.169.254"))


@dataclass(frozen=True)
class Kubectl:
    program: str
    kubeconfig: str

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        chosen = ["--kubeconfig", self.kubeconfig] if self.kubeconfig else []
        return output(self.program, *chosen, *arguments, stdin=stdin)

    def read(self, kind: str) -> dict[str, Any]:
        """All objects of a kind in all namespaces, as a List."""
        found: dict[str, Any] = json.loads(self("get", kind, "--all-namespaces", "--output", "json"))
        return found


def peers(pods: Iterable[Mapping[str, Any]], namespaces: Iterable[Mapping[str, Any]], ingress: str) -> list[Peer]:
    """Every running pod of the platform, DNS, the Gateway's proxies, and a pod of nobody."""
    labels_of = {namespace["metadata"]["name"]: namespace["metadata"].get("labels", {}) for namespace in namespaces}
    found = []
    for pod in pods:
        address = pod.get("status", {}).get("podIP", "")
        name = _name(pod["metadata"], ingress)
        if not name or not address or pod["status"].get("phase") != "Running" or pod["spec"].get("hostNetwork"):
            continue
        namespace = pod["metadata"]["namespace"]
        ports = tuple(
            (Port(port["containerPort"], port.get("protocol", "TCP")), port.get("name", ""))
            for container in pod["spec"]["containers"] for port in container.get("ports", [])
        )
        found.append(Peer(name, address, namespace, pod["metadata"]["name"], pod["metadata"].get("labels", {}), labels_of[namespace], ports))
    found.append(Peer("any other pod", "10.254.253.1", "default", "", {}, labels_of.get("default", {})))
    return found


def absent(found: Iterable[Peer], policies: Iterable[Mapping[str, Any]], namespaces: Mapping[str, Mapping[str, str]]) -> list[Peer]:
    """What a policy is made for and does not run now, as the pod of a Job: for a policy its labels are all that counts."""
    there = {(peer.namespace, peer.name) for peer in found}
    missing: list[Peer] = []
    for policy in policies:
        namespace, labels = policy["metadata"]["namespace"], policy["spec"].get("podSelector", {}).get("matchLabels", {})
        name = labels.get("app.kubernetes.io/name")
        if name and namespace in namespaces and (namespace, name) not in there:
            missing.append(Peer(name, f"10.254.254.{len(missing) + 1}", namespace, "", labels, namespaces[namespace]))
            there.add((namespace, name))
    return missing


def _name(metadata: Mapping[str, Any], ingress: str) -> str:
    labels = metadata.get("labels", {})
    if labels.get("app.kubernetes.io/part-of") == "sophia":
        return str(labels["app.kubernetes.io/name"])
    if metadata["namespace"] == "kube-system" and labels.get("k8s-app") == "kube-dns":
        return "dns"
    return "ingress" if metadata["namespace"] == ingress else ""


def representatives(found: Iterable[Peer]) -> list[Peer]:
    """Two pods of each name and namespace at most: the replicas of a service are alike, but it matters whether they reach each other."""
    kept: dict[tuple[str, str], list[Peer]] = {}
    for peer in found:
        kept.setdefault((peer.name, peer.namespace), []).append(peer)
    return [peer for alike in kept.values() for peer in alike[:2]]
