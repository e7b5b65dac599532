# SPDX-License-Identifier: GPL-3.0-or-later
"""The control plane on the first node: etcd, kube-apiserver, kube-controller-manager, kube-scheduler."""

from __future__ import annotations

from pathlib import Path

from . import keys
from .daemons import Daemon
from .layout import CLUSTER_DOMAIN, NODES, POD_RANGE, SERVICE_RANGE, Layout
from .shell import succeeds, wait_for

__all__ = ["daemons", "server", "start"]

FIRST = NODES[0]


def server() -> str:
    """The apiserver's address for everything: this machine, both nodes, and pods."""
    return f"https://{FIRST.address}:6443"


def daemons(layout: Layout, programs: Path) -> dict[str, Daemon]:
    """The four processes in the order they start. `programs` holds the binaries."""
    def daemon(name: str, *flags: str) -> Daemon:
        return Daemon(name, (str(programs / name), *flags), layout.run, layout.logs, FIRST.namespace)

    folder = layout.keys
    etcd = "http://127.0.0.1:2379"
    return {
        "etcd": daemon(
            "etcd", f"--data-dir={layout.etcd}", f"--listen-client-urls={etcd}", f"--advertise-client-urls={etcd}",
            "--listen-peer-urls=http://127.0.0.1:2380", "--unsafe-no-fsync", "--log-level=warn",
        ),
        "apiserver": daemon(
            "kube-apiserver", f"--etcd-servers={etcd}", "--bind-address=0.0.0.0", f"--advertise-address={FIRST.address}",
            "--endpoint-reconciler-type=lease", f"--service-cluster-ip-range={SERVICE_RANGE}", "--allow-privileged=true",
            f"--tls-cert-file={folder}/apiserver.crt", f"--tls-private-key-file={folder}/apiserver.key", f"--client-ca-file={folder}/ca.crt",
            f"--service-account-issuer=https://kubernetes.default.svc.{CLUSTER_DOMAIN}",
            f"--service-account-key-file={folder}/accounts.pub", f"--service-account-signing-key-file={folder}/accounts.key",
            "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
            f"--encryption-provider-config={folder}/encryption.json",
            f"--kubelet-client-certificate={folder}/kubelet-client.crt", f"--kubelet-client-key={folder}/kubelet-client.key",
            f"--kubelet-certificate-authority={folder}/ca.crt", "--kubelet-preferred-address-types=InternalIP",
            # The aggregation layer: metrics-server and KEDA answer behind the apiserver.
            f"--requestheader-client-ca-file={folder}/ca.crt", "--requestheader-allowed-names=front-proxy-client",
            "--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-", "--enable-aggregator-routing=true",
            f"--proxy-client-cert-file={folder}/front-proxy.crt", f"--proxy-client-key-file={folder}/front-proxy.key",
        ),
        "controllers": daemon(
            "kube-controller-manager", f"--kubeconfig={layout.run}/controller-manager.json", "--use-service-account-credentials",
            f"--service-account-private-key-file={folder}/accounts.key", f"--root-ca-file={folder}/ca.crt",
            f"--cluster-signing-cert-file={folder}/ca.crt", f"--cluster-signing-key-file={folder}/ca.key",
            f"--cluster-cidr={POD_RANGE}", f"--service-cluster-ip-range={SERVICE_RANGE}", "--allocate-node-cidrs=false",
            "--leader-elect=false",
            # A lost node shows within the patience of a test.
            "--node-monitor-period=2s", "--node-monitor-grace-period=16s",
        ),
        "scheduler": daemon("kube-scheduler", f"--kubeconfig={layout.run}/scheduler.json", "--leader-elect=false"),
    }


def start(layout: Layout, programs: Path) -> None:
    """Start what does not run, and wait until the API answers."""
    for identity in ("controller-manager", "scheduler"):
        keys.kubeconfig(layout.run / f"{identity}.json", layout.keys, identity, server())
    keys.kubeconfig(layout.kubeconfig, layout.keys, "admin", server())
    layout.etcd.mkdir(mode=0o700, parents=True, exist_ok=True)
    plane = daemons(layout, programs)
    plane["etcd"].start()
    plane["apiserver"].start()

    def answers() -> bool:
        plane["etcd"].check()
        plane["apiserver"].check()
        return succeeds(programs / "kubectl", "--kubeconfig", layout.kubeconfig, "get", "--raw", "/readyz")

    wait_for("kube-apiserver", answers, 90)
    plane["controllers"].start()
    plane["scheduler"].start()
