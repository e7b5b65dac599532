# SPDX-License-Identifier: GPL-3.0-or-later
"""The cluster's certificates and kubeconfigs, by openssl. (Kubernetes: "PKI certificates and requirements".)"""

from __future__ import annotations

import base64
import json
import secrets
from dataclasses import dataclass
from pathlib import Path

from .layout import NODES, Node
from .shell import run

__all__ = ["CONTEXT", "IDENTITIES", "Identity", "kubeconfig", "make", "node_identity"]

CONTEXT = "sophia-testbed"
_DAYS = "3650"
_SERVICE_ADDRESS = "10.96.0.1"


@dataclass(frozen=True)
class Identity:
    """A certificate: `name` of its files, its subject, and the names it serves (OpenSSL's subjectAltName)."""

    name: str
    subject: str
    names: str


IDENTITIES = (
    Identity("apiserver", "/CN=kube-apiserver", ",".join([
        "DNS:localhost", "DNS:kubernetes", "DNS:kubernetes.default", "DNS:kubernetes.default.svc",
        "DNS:kubernetes.default.svc.cluster.local", "IP:127.0.0.1", f"IP:{_SERVICE_ADDRESS}", f"IP:{NODES[0].address}",
    ])),
    Identity("kubelet-client", "/O=system:masters/CN=kube-apiserver-kubelet-client", "DNS:kubelet-client"),
    Identity("front-proxy", "/CN=front-proxy-client", "DNS:front-proxy-client"),
    Identity("admin", "/O=system:masters/CN=sophia-testbed-admin", "DNS:admin"),
    Identity("controller-manager", "/CN=system:kube-controller-manager", "DNS:controller-manager"),
    Identity("scheduler", "/CN=system:kube-scheduler", "DNS:scheduler"),
    Identity("proxy", "/CN=system:kube-proxy", "DNS:proxy"),
)


def node_identity(node: Node) -> Identity:
    return Identity(node.name, f"/O=system:nodes/CN=system:node:{node.name}", f"DNS:{node.name},IP:{node.address}")


def make(folder: Path, nodes: tuple[Node, ...] = NODES) -> None:
    """Make what is missing of the authority, the certificates and the signing keys, all readable by root alone."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    if not (folder / "ca.crt").exists():
        run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", folder / "ca.key",
            "-out", folder / "ca.crt", "-subj", f"/CN={CONTEXT}", "-days", _DAYS)
    if not (folder / "accounts.pub").exists():
        run("openssl", "genrsa", "-out", folder / "accounts.key", "2048")
        run("openssl", "rsa", "-in", folder / "accounts.key", "-pubout", "-out", folder / "accounts.pub")
    if not (encryption := folder / "encryption.json").exists():
        encryption.write_text(json.dumps(_encryption(secrets.token_bytes(32)), indent=1))
    for identity in (*IDENTITIES, *map(node_identity, nodes)):
        if not (folder / f"{identity.name}.crt").exists():
            _sign(folder, identity)


def _sign(folder: Path, identity: Identity) -> None:
    key, request, extensions = (folder / f"{identity.name}.{suffix}" for suffix in ("key", "csr", "ext"))
    run("openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, "-out", request,
        "-subj", identity.subject)
    extensions.write_text(f"subjectAltName={identity.names}\nextendedKeyUsage=serverAuth,clientAuth\n")
    run("openssl", "x509", "-req", "-in", request, "-CA", folder / "ca.crt", "-CAkey", folder / "ca.key", "-CAcreateserial",
        "-out", folder / f"{identity.name}.crt", "-days", _DAYS, "-extfile", extensions)
    request.unlink()
    extensions.unlink()


def _encryption(key: bytes) -> dict[str, object]:
    """Secrets are encrypted at rest, as production's are (apiserver.config.k8s.io/v1 EncryptionConfiguration)."""
    provider = {"secretbox": {"keys": [{"name": "bed", "secret": base64.b64encode(key).decode()}]}}
    return {
        "apiVersion": "apiserver.config.k8s.io/v1", "kind": "EncryptionConfiguration",
        "resources": [{"resources": ["secrets"], "providers": [provider, {"identity": {}}]}],
    }


def kubeconfig(path: Path, folder: Path, name: str, server: str) -> Path:
    """Write a kubeconfig for one identity, with its key in it; JSON is YAML."""
    def embedded(file: str) -> str:
        return base64.b64encode((folder / file).read_bytes()).decode()

    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(json.dumps({
        "apiVersion": "v1", "kind": "Config", "current-context": CONTEXT,
        "clusters": [{"name": CONTEXT, "cluster": {"server": server, "certificate-authority-data": embedded("ca.crt")}}],
        "users": [{"name": name, "user": {
            "client-certificate-data": embedded(f"{name}.crt"), "client-key-data": embedded(f"{name}.key"),
        }}],
        "contexts": [{"name": CONTEXT, "context": {"cluster": CONTEXT, "user": name}}],
    }, indent=1) + "\n")
    return path
