# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change in any release.

"""Free capacity of nodes, and whether workloads fit on them.

Free is what a node can give (`status.allocatable`) less what its pods request; usage says nothing about what the
scheduler will accept. Placing is first fit, the largest first: it keeps node selectors, required node affinity, taints
and every requested resource, and knows nothing of spread and pod affinity. So "fits" here can still wait there; what
does not fit here fits nowhere but by luck of order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from ansible_collections.sophia.platform.plugins.module_utils._cluster.quantities import (
    Resources,
    added,
    pod_requests,
    quantity,
    shown,
)

_DONE = ("Succeeded", "Failed")


@dataclass(frozen=True)
class Node:
    """A node that takes pods. `free` is in base units; `pool` is the value of the pool's label, "" without one."""

    name: str
    pool: str
    free: Resources
    labels: Mapping[str, str]
    taints: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Workload:
    """Pods that are to be placed."""

    name: str
    replicas: int
    requests: Resources
    spec: Mapping[str, Any]


@dataclass(frozen=True)
class Shortage:
    """`placed` of `workload.replicas` pods fit; `reason` is why the next one does not."""

    workload: Workload
    placed: int
    reason: str


@dataclass
class _Room:
    node: Node
    free: Resources = field(default_factory=dict)


def free_nodes(nodes: Iterable[Mapping[str, Any]], pods: Iterable[Mapping[str, Any]], pool_label: str, ours: Mapping[str, str]) -> list[Node]:
    """Return the nodes that take pods, with what is free on each.

    Pods with all labels of ``ours`` are what is about to be replaced, and are not counted.
    """
    used: dict[str, list[Resources]] = {}
    for pod in pods:
        labels = pod["metadata"].get("labels") or {}
        mine = bool(ours) and all(labels.get(name) == value for name, value in ours.items())
        node = pod["spec"].get("nodeName")
        if node and not mine and (pod.get("status") or {}).get("phase") not in _DONE:
            used.setdefault(node, []).append(pod_requests(pod["spec"]))
    return [_node(node, added(used.get(node["metadata"]["name"], [])), pool_label) for node in nodes if _takes_pods(node)]


def _node(node: Mapping[str, Any], used: Resources, pool_label: str) -> Node:
    labels = node["metadata"].get("labels") or {}
    allocatable = {name: quantity(amount) for name, amount in (node["status"].get("allocatable") or {}).items()}
    free = {name: amount - used.get(name, Decimal(0)) for name, amount in allocatable.items()}
    return Node(node["metadata"]["name"], labels.get(pool_label, ""), free, labels, node["spec"].get("taints") or ())


def _takes_pods(node: Mapping[str, Any]) -> bool:
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"].get("conditions") or [])
    return ready and not node["spec"].get("unschedulable")


def workloads(manifests: Iterable[Mapping[str, Any]]) -> list[Workload]:
    """Return what the manifests would run."""
    found = []
    for manifest in manifests:
        spec = manifest.get("spec") or {}
        if manifest.get("kind") in ("Deployment", "StatefulSet", "ReplicaSet", "Job"):
            count = spec.get("parallelism" if manifest["kind"] == "Job" else "replicas")
            pod = spec["template"]["spec"]
            name = f"{manifest['metadata'].get('namespace', 'default')}/{manifest['metadata']['name']}"
            found.append(Workload(name, 1 if count is None else int(count), pod_requests(pod), pod))
    return found


def shortages(wanted: Iterable[Workload], nodes: Iterable[Node]) -> list[Shortage]:
    """Place all of it together and return what does not fit."""
    rooms = [_Room(node, dict(node.free)) for node in nodes]
    short = []
    for workload in sorted(wanted, key=lambda item: (-_weight(item), item.name)):
        candidates = [room for room in rooms if accepts(room.node, workload.spec)]
        placed = 0
        while placed < workload.replicas and (room := _first(candidates, workload.requests)):
            for resource, amount in workload.requests.items():
                room.free[resource] -= amount
            placed += 1
        if placed < workload.replicas:
            short.append(Shortage(workload, placed, _reason(workload, candidates)))
    return short


def _weight(workload: Workload) -> Decimal:
    """Extended resources (GPUs) before all, then memory, the resource that cannot be squeezed."""
    extended = sum(amount for name, amount in workload.requests.items() if "/" in name)
    return extended * 2**50 + workload.requests.get("memory", Decimal(0))


def _first(rooms: Iterable[_Room], requests: Resources) -> _Room | None:
    for room in rooms:
        if all(room.free.get(resource, Decimal(0)) >= amount for resource, amount in requests.items() if amount):
            return room
    return None


def _reason(workload: Workload, candidates: Sequence[_Room]) -> str:
    if not candidates:
        return "no node has the labels that it selects, or its taints are not tolerated"
    lacking = []
    for resource, amount in workload.requests.items():
        most = max(room.free.get(resource, Decimal(0)) for room in candidates)
        if amount > most:
            lacking.append(f"needs {shown(resource, amount)} {resource}, the most that one node has left is {shown(resource, max(most, Decimal(0)))}")
    return "; ".join(lacking) or "no single node has enough of everything left"


def accepts(node: Node, spec: Mapping[str, Any]) -> bool:
    """Whether the scheduler may put such a pod on the node, as far as labels and taints go."""
    selector = spec.get("nodeSelector") or {}
    if any(node.labels.get(name) != value for name, value in selector.items()):
        return False
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if required and not any(_term(term, node) for term in required.get("nodeSelectorTerms") or []):
        return False
    hard = [taint for taint in node.taints if taint.get("effect") in ("NoSchedule", "NoExecute")]
    return all(any(_tolerates(toleration, taint) for toleration in spec.get("tolerations") or []) for taint in hard)


def _tolerates(toleration: Mapping[str, Any], taint: Mapping[str, Any]) -> bool:
    if toleration.get("effect") and toleration["effect"] != taint.get("effect"):
        return False
    if not toleration.get("key"):
        return toleration.get("operator") == "Exists"
    if toleration["key"] != taint.get("key"):
        return False
    return toleration.get("operator") == "Exists" or (toleration.get("value") or "") == (taint.get("value") or "")


def _term(term: Mapping[str, Any], node: Node) -> bool:
    fields = {"metadata.name": node.name}
    expressions = [(e, node.labels) for e in term.get("matchExpressions") or []]
    expressions += [(e, fields) for e in term.get("matchFields") or []]
    return bool(expressions) and all(_expression(expression, labels) for expression, labels in expressions)


def _expression(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    value = labels.get(expression["key"])
    values = [str(item) for item in expression.get("values") or []]
    operator = expression["operator"]
    if operator == "In":
        return value in values
    if operator == "NotIn":
        return value not in values
    if operator == "Exists":
        return value is not None
    if operator == "DoesNotExist":
        return value is None
    try:
        return value is not None and (int(value) > int(values[0]) if operator == "Gt" else int(value) < int(values[0]))
    except ValueError:
        return False
