# SPDX-License-Identifier: GPL-3.0-or-later
"""A cluster that somebody else made, named by KUBECONFIG: nothing is installed into it; what a deployment would miss there is told."""

from __future__ import annotations

from typing import Any

from .errors import CommandFailed, NotReady
from .kube import Kubectl

__all__ = ["check", "missing"]

_DEFAULT = "storageclass.kubernetes.io/is-default-class"
_QUERIES = {
    "nodes": "nodes", "services": "services --namespace=kube-system", "classes": "storageclasses", "definitions": "customresourcedefinitions",
    "apis": "apiservices",
}


def condition(item: dict[str, Any], kind: str) -> bool:
    """Whether an object's status has a condition that is True."""
    return any(one["type"] == kind and one["status"] == "True" for one in item.get("status", {}).get("conditions", []))


def missing(found: dict[str, list[dict[str, Any]]]) -> list[str]:
    """What lists of a cluster's objects lack, each in a line for a person; keys as in the queries."""
    definitions = {item["metadata"]["name"] for item in found["definitions"]}
    problems = []
    if not any(condition(node, "Ready") for node in found["nodes"]):
        problems.append("no node is Ready")
    if not any(item["metadata"]["name"] in ("kube-dns", "coredns", "rke2-coredns") for item in found["services"]):
        problems.append("no cluster DNS (Service kube-dns in kube-system)")
    if not any(item["metadata"].get("annotations", {}).get(_DEFAULT) == "true" for item in found["classes"]):
        problems.append("no default StorageClass")
    for name, what in (
        ("gateways.gateway.networking.k8s.io", "Gateway API (and a controller for it)"),
        ("certificates.cert-manager.io", "cert-manager"),
        ("scaledobjects.keda.sh", "KEDA"),
    ):
        if name not in definitions:
            problems.append(f"no {what}: definition {name}")
    if not any(item["metadata"]["name"] == "v1beta1.metrics.k8s.io" and condition(item, "Available") for item in found["apis"]):
        problems.append("no metrics API (metrics-server)")
    return problems


def check(kubectl: Kubectl) -> None:
    """NotReady with everything that is missing; it reads only."""
    try:
        found = {name: kubectl.get(*query.split())["items"] for name, query in _QUERIES.items()}
    except CommandFailed as error:
        raise NotReady(f"the cluster of {kubectl.kubeconfig} does not answer:\n{error}") from error
    if problems := missing(found):
        raise NotReady("\n- ".join([f"the cluster of {kubectl.kubeconfig} is not ready for a deployment:", *problems]))
