# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the bed keeps things, and the addresses it uses. Nothing here touches the machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["BRIDGE", "CLUSTER_DOMAIN", "DNS_ADDRESS", "HOST_ADDRESS", "NODES", "POD_RANGE", "REGISTRY", "SERVICE_RANGE", "Layout", "Node"]

BRIDGE = "sophia0"
HOST_ADDRESS = "10.77.0.254"
POD_RANGE = "10.244.0.0/16"
SERVICE_RANGE = "10.96.0.0/16"
DNS_ADDRESS = "10.96.0.10"
CLUSTER_DOMAIN = "cluster.local"


@dataclass(frozen=True)
class Node:
    """One node: a network namespace on the bed's bridge with a kubelet, a containerd and a kube-proxy of its own."""

    number: int

    @property
    def name(self) -> str:
        return f"node-{self.number}"

    @property
    def namespace(self) -> str:
        return f"sophia-node-{self.number}"

    @property
    def link(self) -> str:
        """The bridge's end of the pair of links; the node's end is eth0."""
        return f"sophia-n{self.number}"

    @property
    def address(self) -> str:
        return f"10.77.0.{self.number}"

    @property
    def pods(self) -> str:
        return f"10.244.{self.number}.0/24"

    @property
    def zone(self) -> str:
        return f"zone-{self.number}"


# The first node carries the control plane and the registry as well.
NODES = (Node(1), Node(2))
REGISTRY = f"{NODES[0].address}:5000"


@dataclass(frozen=True)
class Layout:
    """`cache` outlives the bed (programs, images); `state` is the bed."""

    cache: Path
    state: Path

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Layout:
        home = Path(environ.get("HOME", "/root"))
        cache = Path(environ.get("XDG_CACHE_HOME") or home / ".cache") / "sophia-testbed"
        return cls(cache, Path(environ.get("SOPHIA_TESTBED_STATE") or "/var/lib/sophia-testbed"))

    @property
    def kubeconfig(self) -> Path:
        return self.state / "kubeconfig"

    @property
    def authority(self) -> Path:
        """The certificate that signs what cert-manager issues in the bed: for curl's --cacert."""
        return self.state / "ca.crt"

    @property
    def programs(self) -> Path:
        """Links to kubectl, helm and the others."""
        return self.state / "bin"

    @property
    def keys(self) -> Path:
        return self.state / "keys"

    @property
    def run(self) -> Path:
        """Process ids and sockets."""
        return self.state / "run"

    @property
    def logs(self) -> Path:
        return self.state / "logs"

    @property
    def volumes(self) -> Path:
        return self.state / "volumes"

    @property
    def etcd(self) -> Path:
        return self.state / "etcd"

    @property
    def registry(self) -> Path:
        """The registry's store lies in the cache: a new bed finds its images there."""
        return self.cache / "registry"

    def node(self, node: Node) -> Path:
        return self.state / node.name
