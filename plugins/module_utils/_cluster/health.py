# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change in any release.

"""What an object's status says against it, in one line each.

Sources: API reference of each kind; Gateway API, "Implementer's guide", conditions of Gateway, HTTPRoute and policies
(GEP-713). A status that was written for an older generation says nothing about the object as it is now.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

Object = Mapping[str, Any]

_WAITING = ("ContainerCreating", "PodInitializing")


def problems(resource: Object) -> list[str]:
    """Return why the object is not (yet) as it should be; empty where it is."""
    judge = _JUDGES.get(str(resource.get("kind")), _ready)
    name = "/".join(filter(None, (resource["metadata"].get("namespace"), resource["metadata"]["name"])))
    return [f"{resource.get('kind')} {name}: {problem}" for problem in judge(resource)]


def _unmet(resource: Object, conditions: Iterable[Mapping[str, Any]] | None, wanted: Iterable[str], where: str = "") -> Iterator[str]:
    """Every wanted condition that is not True, with its reason and message."""
    known = {condition["type"]: condition for condition in conditions or []}
    generation = int(resource["metadata"].get("generation") or 0)
    prefix = f"{where}: " if where else ""
    for kind in wanted:
        condition = known.get(kind)
        if condition is None:
            yield f"{prefix}nobody has said whether it is {kind} yet"
        elif int(condition.get("observedGeneration") or generation) < generation:
            yield f"{prefix}its last change has not been looked at yet ({kind})"
        elif condition.get("status") != "True":
            message = " ".join(str(condition.get("message") or "").split())
            yield f"{prefix}not {kind} ({condition.get('reason') or condition.get('status')}){': ' + message if message else ''}"


def _gateway(resource: Object) -> Iterator[str]:
    status = resource.get("status") or {}
    yield from _unmet(resource, status.get("conditions"), ("Accepted", "Programmed"))
    for listener in status.get("listeners") or []:
        yield from _unmet(resource, listener.get("conditions"), ("Accepted", "ResolvedRefs", "Programmed"), f"listener {listener.get('name')}")


def _route(resource: Object) -> Iterator[str]:
    parents = (resource.get("status") or {}).get("parents") or []
    if not parents:
        yield "no gateway has taken it"
    for parent in parents:
        yield from _unmet(resource, parent.get("conditions"), ("Accepted", "ResolvedRefs"), f"gateway {(parent.get('parentRef') or {}).get('name')}")


def _policy(resource: Object) -> Iterator[str]:
    ancestors = (resource.get("status") or {}).get("ancestors") or []
    if not ancestors:
        yield "no controller has taken it"
    for ancestor in ancestors:
        yield from _unmet(resource, ancestor.get("conditions"), ("Accepted",))


def _class(resource: Object) -> Iterator[str]:
    yield from _unmet(resource, (resource.get("status") or {}).get("conditions"), ("Accepted",))


def _ready(resource: Object) -> Iterator[str]:
    yield from _unmet(resource, (resource.get("status") or {}).get("conditions"), ("Ready",))


def _available(resource: Object) -> Iterator[str]:
    yield from _unmet(resource, (resource.get("status") or {}).get("conditions"), ("Available",))


def _rollout(resource: Object) -> Iterator[str]:
    spec, status = resource.get("spec") or {}, resource.get("status") or {}
    wanted = int(spec.get("replicas", 1))
    updated, available = int(status.get("updatedReplicas") or 0), int(status.get("availableReplicas") or 0)
    if int(status.get("observedGeneration") or 0) < int(resource["metadata"].get("generation") or 0):
        yield "its last change has not been looked at yet"
    elif updated < wanted or available < wanted:
        yield f"{available} of {wanted} pods available, {updated} of the new description"
    elif int(status.get("replicas") or 0) > wanted:
        yield f"{int(status['replicas']) - wanted} pods of the old description are still there"
    for condition in status.get("conditions") or []:
        if condition["type"] in ("Progressing", "ReplicaFailure") and condition.get("reason") in ("ProgressDeadlineExceeded", "FailedCreate"):
            yield " ".join(str(condition.get("message")).split())


def _pod(resource: Object) -> Iterator[str]:
    status = resource.get("status") or {}
    for condition in status.get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            yield f"not scheduled: {' '.join(str(condition.get('message')).split())}"
    for container in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") and waiting["reason"] not in _WAITING:
            message = " ".join(str(waiting.get("message") or "").split())
            yield f"container {container['name']} waits: {waiting['reason']}{': ' + message if message else ''}"
        ended = (container.get("lastState") or {}).get("terminated") or (container.get("state") or {}).get("terminated") or {}
        if ended.get("exitCode"):
            yield f"container {container['name']} ended with {ended['exitCode']} ({ended.get('reason')}), {container.get('restartCount', 0)} restarts"


def _claim(resource: Object) -> Iterator[str]:
    phase = (resource.get("status") or {}).get("phase")
    if phase != "Bound":
        yield f"{phase or 'not looked at'} (class {(resource.get('spec') or {}).get('storageClassName') or 'default'})"


def _job(resource: Object) -> Iterator[str]:
    for condition in (resource.get("status") or {}).get("conditions") or []:
        if condition["type"] == "Failed" and condition["status"] == "True":
            yield f"failed ({condition.get('reason')}): {' '.join(str(condition.get('message')).split())}"


_JUDGES: Mapping[str, Callable[[Object], Iterator[str]]] = {
    "APIService": _available,
    "BackendTrafficPolicy": _policy,
    "ClientTrafficPolicy": _policy,
    "SecurityPolicy": _policy,
    "Deployment": _rollout,
    "StatefulSet": _rollout,
    "Gateway": _gateway,
    "GatewayClass": _class,
    "HTTPRoute": _route,
    "Job": _job,
    "PersistentVolumeClaim": _claim,
    "Pod": _pod,
}
