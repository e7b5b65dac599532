# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What happens to a platform, each brought about on the cluster and followed until all is whole again."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from .platform import Cluster, CommandFailed

__all__ = ["EVENTS", "Event"]

_WHOLE_SECONDS = 300
# Stores whose pods stay where their volumes are, and the stand-in for what in production is not in the cluster.
_STAYING = ("postgres", "redis", "openrouter-sandbox")


@dataclass(frozen=True)
class Event:
    """`act` returns when the platform is whole again.

    `bound`: seconds from its begin after which no request may fail any more; 0 where none may fail at all. `refusals`: how those that do
    fail may fail, by the begin of their kind.
    """

    name: str
    what: str
    act: Callable[[Cluster], None]
    bound: float = 0.0
    refusals: tuple[str, ...] = ()


def _whole(cluster: Cluster) -> None:
    for workload in ("deployment/gateway", "statefulset/redis", "statefulset/postgres"):
        cluster("rollout", "status", workload, f"--timeout={_WHOLE_SECONDS}s")


def _update(cluster: Cluster) -> None:
    cluster("rollout", "restart", "deployment/gateway")
    _whole(cluster)


def _kill_gateway(cluster: Cluster) -> None:
    cluster("delete", "pod", cluster.pods("gateway")[0]["metadata"]["name"])
    _whole(cluster)


def _kill_store(pod: str) -> Callable[[Cluster], None]:
    def act(cluster: Cluster) -> None:
        before = cluster.get(f"pod/{pod}")["metadata"]["uid"]
        cluster("delete", f"pod/{pod}")
        limit = time.monotonic() + _WHOLE_SECONDS
        while cluster("get", f"pod/{pod}", "--ignore-not-found", "--output=jsonpath={.metadata.uid}") in ("", before):
            if time.monotonic() > limit:
                raise CommandFailed(f"pod/{pod} does not come back")
            time.sleep(0.5)
        _whole(cluster)

    return act


def _drain(cluster: Cluster) -> None:
    node = _drainable(cluster)
    try:
        cluster("drain", node, "--ignore-daemonsets", "--delete-emptydir-data", f"--timeout={_WHOLE_SECONDS}s")
        _whole(cluster)
    finally:
        cluster("uncordon", node)


def _drainable(cluster: Cluster) -> str:
    """A node that runs a gateway and holds nothing that stays with its volume."""
    held = {pod["spec"].get("nodeName") for name in _STAYING for pod in cluster.pods(name)}
    for pod in cluster.pods("gateway"):
        node: str = pod["spec"].get("nodeName", "")
        if node and node not in held:
            return node
    raise CommandFailed(f"every node with a gateway also holds one of {', '.join(_STAYING)}, so none can be drained without stopping a store")


EVENTS = {
    event.name: event
    for event in (
        Event("update", "the gateway's Deployment is rolled over", _update),
        Event("drain", "a node is cordoned, its pods are evicted", _drain),
        Event("gateway", "a gateway's pod is deleted", _kill_gateway),
        # docs/data-services.md: refused rather than spent without a budget.
        Event("redis", "the pod of Redis is deleted", _kill_store("redis-0"), bound=60, refusals=("503", "429")),
        Event("postgres", "the pod of Postgres' primary is deleted", _kill_store("postgres-0"), bound=60, refusals=("503",)),
    )
}
