# SPDX-License-Identifier: GPL-3.0-or-later
"""A node: containerd, kubelet and kube-proxy in the node's network namespace, with folders, sockets and cgroups of their own."""

from __future__ import annotations

import json
from pathlib import Path

from . import cgroups, control, keys
from .daemons import Daemon
from .layout import CLUSTER_DOMAIN, DNS_ADDRESS, NODES, POD_RANGE, REGISTRY, Layout, Node
from .shell import succeeds, wait_for

__all__ = ["daemons", "start"]

# containerd 1.6 (Debian 12). The CRI has to leave oom_score_adj alone where CAP_SYS_RESOURCE is missing.
CONTAINERD = """\
version = 2
root = "{folder}/containerd"
state = "{folder}/run/containerd"
oom_score = 0
[grpc]
  address = "{folder}/run/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{registry}/pause:1"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{folder}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{folder}/registries"
"""

REGISTRIES = """\
server = "http://{registry}"
[host."http://{registry}"]
  capabilities = ["pull", "resolve"]
"""


def network(folder: Path, node: Node) -> dict[str, object]:
    """The CNI list: a bridge with addresses from the node's range. Pods keep their addresses everywhere, so nothing is masqueraded."""
    addresses = {
        "type": "host-local", "dataDir": str(folder / "addresses"), "ranges": [[{"subnet": node.pods}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipMasq": False, "hairpinMode": True, "ipam": addresses}
    return {"cniVersion": "0.4.0", "name": "sophia-testbed", "plugins": [bridge]}


def kubelet(layout: Layout, folder: Path, node: Node) -> dict[str, object]:
    """kubelet.config.k8s.io/v1beta1 KubeletConfiguration."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "authentication": {"anonymous": {"enabled": False}, "webhook": {"enabled": True}, "x509": {"clientCAFile": f"{layout.keys}/ca.crt"}},
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": f"{layout.keys}/{node.name}.crt", "tlsPrivateKeyFile": f"{layout.keys}/{node.name}.key",
        "containerRuntimeEndpoint": f"unix://{folder}/run/containerd.sock",
        "cgroupDriver": "cgroupfs", "cgroupRoot": cgroups.root_of(node), "failCgroupV1": False, "enforceNodeAllocatable": [],
        "clusterDNS": [DNS_ADDRESS], "clusterDomain": CLUSTER_DOMAIN, "resolvConf": f"{folder}/resolv.conf",
        "podLogsDir": f"{folder}/pods", "volumePluginDir": f"{folder}/plugins",
        # The machine's disk is not the bed's to watch: no eviction, no removal of images.
        "evictionHard": {}, "imageGCHighThresholdPercent": 100, "failSwapOn": False, "maxPods": 200,
        "nodeStatusUpdateFrequency": "4s", "serializeImagePulls": False, "shutdownGracePeriod": "0s",
    }


def daemons(layout: Layout, programs: Path, node: Node) -> dict[str, Daemon]:
    """The node's three processes. `programs` holds Kubernetes' binaries; containerd is Debian's."""
    folder = layout.node(node)

    def daemon(name: str, *argv: str) -> Daemon:
        return Daemon(name, argv, folder / "run", layout.logs / node.name, node.namespace)

    return {
        "containerd": daemon("containerd", "containerd", f"--config={folder}/containerd.toml"),
        "kubelet": daemon(
            "kubelet", str(programs / "kubelet"), f"--config={folder}/kubelet.json", f"--kubeconfig={folder}/kubelet.kubeconfig",
            f"--root-dir={folder}/kubelet", f"--cert-dir={folder}/kubelet-keys", f"--hostname-override={node.name}",
            f"--node-ip={node.address}", f"--node-labels=topology.kubernetes.io/zone={node.zone}",
        ),
        "proxy": daemon(
            "proxy", str(programs / "kube-proxy"), f"--kubeconfig={folder}/proxy.kubeconfig", "--proxy-mode=nftables",
            f"--cluster-cidr={POD_RANGE}", f"--hostname-override={node.name}", "--conntrack-max-per-core=0",
        ),
    }


def configure(layout: Layout, node: Node) -> None:
    """Write the node's configuration; the running processes keep what they were started with."""
    folder = layout.node(node)
    registries = folder / "registries" / REGISTRY
    for path in (folder / "run", folder / "cni", folder / "kubelet-keys", folder / "pods", registries):
        path.mkdir(parents=True, exist_ok=True)
    (folder / "containerd.toml").write_text(CONTAINERD.format(folder=folder, registry=REGISTRY))
    (registries / "hosts.toml").write_text(REGISTRIES.format(registry=REGISTRY))
    (folder / "cni/10-bed.conflist").write_text(json.dumps(network(folder, node), indent=1))
    (folder / "kubelet.json").write_text(json.dumps(kubelet(layout, folder, node), indent=1))
    # Names outside the cluster are nobody's business in the bed; CoreDNS answers for the cluster.
    (folder / "resolv.conf").write_text("nameserver 127.0.0.1\n")
    keys.kubeconfig(folder / "kubelet.kubeconfig", layout.keys, node.name, control.server())
    keys.kubeconfig(folder / "proxy.kubeconfig", layout.keys, "proxy", control.server())


def start(layout: Layout, programs: Path, node: Node) -> None:
    """Start what does not run, and wait until the node is Ready."""
    configure(layout, node)
    processes = daemons(layout, programs, node)
    socket = layout.node(node) / "run/containerd.sock"
    processes["containerd"].start()

    def serves() -> bool:
        processes["containerd"].check()
        return socket.exists() and succeeds("ctr", "--address", socket, "version")

    wait_for(f"containerd of {node.name}", serves, 30)
    processes["kubelet"].start()
    processes["proxy"].start()

    def ready() -> bool:
        processes["kubelet"].check()
        return succeeds(programs / "kubectl", "--kubeconfig", layout.kubeconfig, "wait", "--for=condition=Ready", f"node/{node.name}", "--timeout=1s")

    wait_for(node.name, ready, 60)


def all_daemons(layout: Layout, programs: Path) -> list[Daemon]:
    """Of every node."""
    return [daemon for node in NODES for daemon in daemons(layout, programs, node).values()]
