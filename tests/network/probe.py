# SPDX-License-Identifier: GPL-3.0-or-later
"""The same questions asked of the network itself, from within the pods. Worth something only where the cluster enforces policies."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from ..testbed.errors import CommandFailed
from ..testbed.shell import wait_for
from .cluster import Kubectl, Peer
from .cyclonus import Query
from .errors import BadAnswer

__all__ = ["askable", "enforces", "probe"]

# bash opens TCP connections by itself, and every image of the platform has it. A refused connection was let through; one that is cut has no answer.
_SCRIPT = (
    'for at in "$@"; do error=$( { timeout 3 bash -c "exec 3<>/dev/tcp/${at%%:*}/${at##*:}"; } 2>&1 ); code=$?; '
    'if [ $code = 0 ] || [ "${error#*refused}" != "$error" ]; then echo "$at open"; else echo "$at cut"; fi; done'
)
NAMESPACE = "sophia-network-probe"


def askable(query: Query) -> bool:
    """From a pod that runs, to an address that is there, over TCP."""
    return bool(query.source.pod) and bool(query.target.pod) and query.port.protocol == "TCP"


def probe(kubectl: Kubectl, asked: Sequence[Query]) -> list[bool]:
    """For each question whether the way is open. Pods are asked one after the other, and each about all of its targets at once."""
    by_source: dict[Peer, list[Query]] = {}
    for query in asked:
        by_source.setdefault(query.source, []).append(query)
    seen: dict[tuple[str, str], bool] = {}
    for source, questions in by_source.items():
        for address, answer in _ask(kubectl, source.namespace, source.pod, [_address(query) for query in questions]).items():
            seen[source.pod, address] = answer
    return [seen[query.source.pod, _address(query)] for query in asked]


def _address(query: Query) -> str:
    return f"{query.target.address}:{query.port.number}"


def _ask(kubectl: Kubectl, namespace: str, pod: str, addresses: Sequence[str]) -> dict[str, bool]:
    said = kubectl("exec", "--namespace", namespace, pod, "--", "bash", "-c", _SCRIPT, "probe", *addresses)
    found = {address: verdict == "open" for address, verdict in re.findall(r"^(\S+) (open|cut)$", said, re.MULTILINE)}
    if set(found) != set(addresses):
        raise BadAnswer(f"{namespace}/{pod} answered {len(found)} of {len(addresses)} questions")
    return found


def enforces(kubectl: Kubectl, image: str) -> bool:
    """Whether the cluster cuts what a policy forbids: two pods of a namespace of their own, before and after it is closed."""
    kubectl("apply", "--filename", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}))
    try:
        for name in ("client", "server"):
            kubectl("apply", "--filename", "-", stdin=json.dumps(_pod(name, image)))
        kubectl("wait", "--namespace", NAMESPACE, "--for=condition=Ready", "pod/client", "pod/server", "--timeout=120s")
        address = kubectl("get", "--namespace", NAMESPACE, "pod", "server", "--output", "jsonpath={.status.podIP}") + ":8080"
        wait_for("two pods that reach each other", lambda: _ask(kubectl, NAMESPACE, "client", [address])[address], 60)
        closed = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "closed", "namespace": NAMESPACE},
                  "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}}
        kubectl("apply", "--filename", "-", stdin=json.dumps(closed))
        # A policy takes effect within seconds of its making.
        return any(not _ask(kubectl, NAMESPACE, "client", [address])[address] for _ in range(10))
    except CommandFailed as error:
        raise BadAnswer(f"cannot find out whether the cluster enforces policies: {error}") from error
    finally:
        kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def _pod(name: str, image: str) -> dict[str, object]:
    return {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "automountServiceAccountToken": False, "terminationGracePeriodSeconds": 0,
            "securityContext": {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": name, "image": image, "command": ["python3", "-m", "http.server", "8080"], "workingDir": "/tmp",
                "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "64Mi"}},
                "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
            }],
        },
    }
