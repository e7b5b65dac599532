# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change in any release.

"""The gateways of a cluster: every Pod that a selector finds at the moment of looking, read through the API server.

Pods come and go during a rotation, so they are listed at each look. A Pod counts from the moment it has a node, because it
may have read the Secret by then, until it is gone, because it may be finishing requests. The metrics are read through the
API server's proxy, so that a controller outside of the cluster's network can rotate as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ansible_collections.sophia.platform.plugins.module_utils._errors import PlatformError
from ansible_collections.sophia.platform.plugins.module_utils._http import Client, segment
from ansible_collections.sophia.platform.plugins.module_utils._openrouter import gateway
from ansible_collections.sophia.platform.plugins.module_utils._openrouter.gateway import Replica


class Pods:
    """Pods of ``namespace`` that ``selector`` finds, each with a page of metrics on each of ``ports``.

    ``client`` lists them, ``pages`` reads their metrics.
    """

    def __init__(
        self, client: Client, pages: Client, namespace: str, selector: str, ports: Sequence[int], least: int
    ) -> None:
        self._client = client
        self._pages = pages
        self._path = f"/api/v1/namespaces/{segment(namespace)}/pods"
        self._selector = selector
        self._ports = tuple(ports)
        self._least = least

    def look(self) -> tuple[Replica, ...]:
        """Look at every Pod once. Too few are trouble too: a selector that finds nothing proves nothing about the keys."""
        try:
            listed = self._client.get(self._path, query={"labelSelector": self._selector}).body["items"]
        except PlatformError as error:
            return (Replica(self._selector, trouble=error.message),)
        pods = [pod for pod in listed if counts(pod)]
        replicas = [self._ask(pod["metadata"]["name"], port) for pod in pods for port in self._ports]
        if len(pods) < self._least:
            replicas.append(Replica(self._selector, trouble=f"{len(pods)} Pods run, at least {self._least} are expected"))
        return tuple(replicas)

    def _ask(self, name: str, port: int) -> Replica:
        return gateway.ask(f"{name}:{port}", self._pages, f"{self._path}/{segment(name)}:{port}/proxy/metrics")


def counts(pod: dict[str, Any]) -> bool:
    """Return whether a Pod can hold a key."""
    return bool(pod["spec"].get("nodeName")) and pod["status"].get("phase") not in ("Succeeded", "Failed")
