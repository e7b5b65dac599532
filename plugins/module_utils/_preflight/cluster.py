# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change in any release.

"""From what a cluster was seen to have and what a deployment asks of it to findings. No I/O."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from ansible_collections.sophia.platform.plugins.module_utils._cluster import capacity, health
from ansible_collections.sophia.platform.plugins.module_utils._cluster.policies import Endpoint, Path, cuts, selects
from ansible_collections.sophia.platform.plugins.module_utils._cluster.quantities import added, quantity, shown
from ansible_collections.sophia.platform.plugins.module_utils._preflight.judge import ERROR, WARNING, Finding, version_of

Object = Mapping[str, Any]
OURS = {"app.kubernetes.io/part-of": "sophia"}
_MESSAGE_MAX = 280


def judge_version(seen: str, minimum: str) -> Iterator[Finding]:
    if (version_of(seen) or ()) < (version_of(minimum) or ()):
        yield Finding(ERROR, "cluster", f"Kubernetes is {seen}, needed is {minimum}", "upgrade the cluster")


def judge_features(features: Iterable[Mapping[str, Any]], apis: Iterable[str]) -> Iterator[Finding]:
    """``apis`` are the group versions that the server offers, as ``gateway.networking.k8s.io/v1``."""
    known = set(apis)
    for feature in features:
        if feature["api"] not in known:
            severity = ERROR if feature.get("required", True) else WARNING
            yield Finding(severity, "cluster", f"the cluster has no {feature['name']} ({feature['api']})", feature.get("hint", ""))


def judge_objects(wanted: Iterable[Mapping[str, Any]], seen: Iterable[Object]) -> Iterator[Finding]:
    """Objects that others have to have made: they are there, and their status says nothing against them."""
    known = {(item["kind"], item["metadata"].get("namespace", ""), item["metadata"]["name"]): item for item in seen}
    for want in wanted:
        found = known.get((want["kind"], want.get("namespace", ""), want["name"]))
        where = f" in {want['namespace']}" if want.get("namespace") else ""
        if found is None:
            names = sorted(name for kind, namespace, name in known if kind == want["kind"] and namespace == want.get("namespace", ""))
            there = f"; there are {', '.join(names)}" if names else ""
            yield Finding(ERROR, "cluster", f"{want['setting']}: no {want['kind']} {want['name']}{where}{there}", want.get("hint", ""))
        elif want.get("healthy", True):
            for problem in health.problems(found):
                yield Finding(ERROR, "cluster", f"{want['setting']}: {problem}", want.get("hint", ""))


def judge_secrets(wanted: Iterable[Mapping[str, Any]], seen: Iterable[Mapping[str, Any]]) -> Iterator[Finding]:
    """``seen`` has name and keys of each Secret, never values. One that is going to be made counts as there."""
    known = {secret["name"]: set(secret["keys"]) for secret in seen}
    for want in wanted:
        if want.get("given"):
            continue
        if want["name"] not in known:
            yield Finding(ERROR, "secret", f"there is no Secret {want['name']} and nothing to make it from", want.get("hint", ""))
        elif missing := sorted(set(want["keys"]) - known[want["name"]]):
            yield Finding(ERROR, "secret", f"Secret {want['name']} lacks {', '.join(missing)}", want.get("hint", ""))


def judge_claims(manifests: Iterable[Object], classes: Iterable[Object]) -> Iterator[Finding]:
    """Every volume that is asked for names a storage class of the cluster, or there is a default one."""
    known = {item["metadata"]["name"]: item for item in classes}
    annotation = "storageclass.kubernetes.io/is-default-class"
    default = any((item["metadata"].get("annotations") or {}).get(annotation) == "true" for item in known.values())
    for owner, claim in _claims(manifests):
        name = claim["spec"].get("storageClassName")
        if name and name not in known:
            there = ", ".join(sorted(known)) or "none"
            yield Finding(ERROR, "storage", f"{owner} wants storage class {name}, which the cluster does not have", f"there are: {there}")
        elif not name and not default:
            yield Finding(ERROR, "storage", f"{owner} wants the default storage class, and the cluster has none", "set sophia_storage_class")


def judge_storage(manifests: Iterable[Object], published: Iterable[Object], bound: Iterable[Object]) -> Iterator[Finding]:
    """What is claimed and not bound yet, against what the CSI drivers publish as free (CSIStorageCapacity)."""
    there = {f"{item['metadata']['namespace']}/{item['metadata']['name']}" for item in bound}
    asked: dict[str, Decimal] = {}
    for owner, claim in _claims(manifests):
        if owner not in there:
            name = claim["spec"].get("storageClassName") or ""
            asked[name] = asked.get(name, Decimal(0)) + quantity(claim["spec"]["resources"]["requests"]["storage"])
    free: dict[str, Decimal] = {}
    for item in published:
        free[item["storageClassName"]] = free.get(item["storageClassName"], Decimal(0)) + quantity(item.get("capacity") or 0)
    for name, amount in sorted(asked.items()):
        if name in free and amount > free[name]:
            message = f"storage class {name} has {shown('storage', free[name])} free, needed are {shown('storage', amount)}"
            yield Finding(ERROR, "storage", message, "add disks or ask for less")


def _claims(manifests: Iterable[Object]) -> Iterator[tuple[str, Object]]:
    """Claims by the name that they will have: a StatefulSet's pods each have their own."""
    for manifest in manifests:
        namespace = manifest["metadata"].get("namespace", "default")
        if manifest["kind"] == "PersistentVolumeClaim":
            yield f"{namespace}/{manifest['metadata']['name']}", manifest
        elif manifest["kind"] == "StatefulSet":
            replicas = manifest["spec"].get("replicas")
            for claim in manifest["spec"].get("volumeClaimTemplates") or []:
                for number in range(1 if replicas is None else int(replicas)):
                    yield f"{namespace}/{claim['metadata']['name']}-{manifest['metadata']['name']}-{number}", claim


def judge_capacity(
    nodes: Iterable[Object], pods: Iterable[Object], manifests: Iterable[Object], pools: Mapping[str, Mapping[str, Any]], pool_label: str
) -> Iterator[Finding]:
    """Free is allocatable less what others' pods request. ``pools`` asks for a minimum by pool, "" being all nodes together."""
    free = capacity.free_nodes(nodes, pods, pool_label, OURS)
    if not free:
        yield Finding(ERROR, "capacity", "no node is ready to take pods", "look at kubectl get nodes")
        return
    for pool, minimum in pools.items():
        yield from _pool(pool, minimum, [node for node in free if pool in ("", node.pool)], pool_label)
    try:
        workloads = capacity.workloads(manifests)
    except ValueError as error:
        yield Finding(ERROR, "capacity", f"what the workloads ask for cannot be read: {error}", "correct their resources")
        return
    for short in capacity.shortages(workloads, free):
        message = f"{short.workload.name}: {short.placed} of {short.workload.replicas} pods fit; {short.reason}"
        yield Finding(ERROR, "capacity", message, "add nodes, or ask for less")


def _pool(pool: str, minimum: Mapping[str, Any], nodes: Sequence[capacity.Node], label: str) -> Iterator[Finding]:
    where = f"node pool {pool}" if pool else "the cluster"
    hint = f"add nodes ({label}={pool}), or ask for less in preflight_pools" if pool else "add nodes, or ask for less in preflight_pools"
    count = int(minimum.get("nodes", 0))
    if len(nodes) < count:
        yield Finding(ERROR, "capacity", f"{where} has {len(nodes)} ready nodes, needed are {count}", hint)
    total = added(node.free for node in nodes)
    for resource, text in minimum.items():
        if resource == "nodes":
            continue
        try:
            have, need = total.get(resource, Decimal(0)), quantity(text)
        except ValueError as error:
            yield Finding(ERROR, "setting", f"preflight_pools: {resource} of {where}: {error}", "")
            continue
        if have < need:
            yield Finding(ERROR, "capacity", f"{where} has {shown(resource, have)} {resource} free, needed are {shown(resource, need)}", hint)


def judge_paths(
    paths: Iterable[Mapping[str, Any]], policies: Iterable[Object], manifests: Sequence[Object], pods: Iterable[Object], namespaces: Iterable[Object]
) -> Iterator[Finding]:
    """Whether the policies, as they will be, leave every needed path open."""
    coming = [item for item in manifests if item["kind"] == "NetworkPolicy"]
    replaced = {_key(item) for item in coming}
    all_policies = [*(item for item in policies if _key(item) not in replaced), *coming]
    labels = {item["metadata"]["name"]: item["metadata"].get("labels") or {} for item in namespaces}
    templates = [*_templates(manifests), *((pod["metadata"], pod["spec"]) for pod in pods)]
    for wanted in paths:
        source, target = (_endpoint(wanted[side], labels, templates) for side in ("from", "to"))
        for port in wanted["ports"]:
            path = Path(source, target, int(port), wanted.get("protocol", "TCP"))
            for cut in cuts(all_policies, path):
                yield Finding(ERROR, "network", f"the way from {path} is cut: {cut}", wanted.get("hint", "allow it in that service's paths"))


def scrape_paths(manifests: Iterable[Object], prometheus: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The ways from Prometheus to every pod that says by annotation that it wants to be scraped."""
    found = []
    for metadata, _spec in _templates(manifests):
        annotations = metadata.get("annotations") or {}
        if annotations.get("prometheus.io/scrape") == "true":
            target = {"name": metadata["labels"].get("app.kubernetes.io/name", ""), "namespace": metadata["namespace"], "labels": metadata["labels"]}
            found.append({"from": prometheus, "to": target, "ports": [annotations["prometheus.io/port"]]})
    return found


def dns_paths(manifests: Iterable[Object], servers: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The ways from every pod to the cluster's DNS."""
    found = []
    for metadata, _spec in _templates(manifests):
        source = {"name": metadata["labels"].get("app.kubernetes.io/name", ""), "namespace": metadata["namespace"], "labels": metadata["labels"]}
        found += [{"from": source, "to": servers, "ports": [53], "protocol": protocol} for protocol in ("UDP", "TCP")]
    return found


def _templates(manifests: Iterable[Object]) -> Iterator[tuple[dict[str, Any], Object]]:
    for manifest in manifests:
        template = (manifest.get("spec") or {}).get("template") or {}
        if manifest["kind"] in ("Deployment", "StatefulSet", "DaemonSet", "Job") and template.get("spec"):
            metadata = template.get("metadata") or {}
            namespace = manifest["metadata"].get("namespace", "default")
            yield {"labels": {}, **metadata, "namespace": namespace}, template["spec"]


def _endpoint(
    side: Mapping[str, Any], namespaces: Mapping[str, Mapping[str, str]], templates: Sequence[tuple[Mapping[str, Any], Object]]
) -> Endpoint:
    if side.get("address"):
        return Endpoint(side.get("name") or side["address"], address=side["address"])
    labels = side.get("labels") or {"app.kubernetes.io/name": side["name"], **OURS}
    # A pod's own labels may be more than those by which it is named, and policies may ask for any of them.
    for metadata, spec in templates:
        if metadata.get("namespace") == side["namespace"] and selects({"matchLabels": labels}, metadata.get("labels") or {}):
            ports = {
                port["name"]: int(port["containerPort"])
                for container in spec.get("containers") or []
                for port in container.get("ports") or []
                if port.get("name")
            }
            return Endpoint(side["name"], side["namespace"], metadata["labels"], namespaces.get(side["namespace"], {}), ports=ports)
    return Endpoint(side["name"], side["namespace"], labels, namespaces.get(side["namespace"], {}))


def _key(item: Object) -> tuple[str, str]:
    return item["metadata"].get("namespace", "default"), item["metadata"]["name"]


def refusals(tried: Sequence[Object], answers: Sequence[Mapping[str, Any]]) -> dict[int, str]:
    """What the API server did not take in a dry run, by its place in ``tried``; ``answers`` are those of kubernetes.core.k8s."""
    found = {}
    for number, answer in enumerate(answers[: len(tried)]):
        message = (answer.get("error") or {}).get("msg") or (answer.get("msg") if answer.get("error") else None)
        if message:
            found[number] = _told(str(message))
    return found


def _told(message: str) -> str:
    """The server's own sentence of what the module wraps it in: a Status object as JSON (API reference, "Status")."""
    start = message.find("{")
    try:
        said = json.loads(message[start:])["message"] if start >= 0 else message
    except (ValueError, KeyError, TypeError):
        said = message
    unknown = re.match(r"Failed to find exact match for (\S+)\.(\w+) by", said)
    if unknown:
        return f"the cluster does not know {unknown.group(2)} ({unknown.group(1)})"
    said = " ".join(said.split())
    return said if len(said) <= _MESSAGE_MAX else f"{said[:_MESSAGE_MAX]}…"


def judge_dry_run(manifests: Sequence[Object], refused: Mapping[int, str], absent: Collection[str] = ()) -> Iterator[Finding]:
    """Objects of APIs that are ``absent`` are left out: that the API is not there is one finding already."""
    for number, message in refused.items():
        manifest = manifests[number]
        if manifest["apiVersion"] in absent:
            continue
        name = "/".join(filter(None, (manifest["metadata"].get("namespace"), manifest["metadata"]["name"])))
        yield Finding(ERROR, "manifest", f"{manifest['kind']} {name} is refused: {message}")
