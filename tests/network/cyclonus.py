# SPDX-License-Identifier: GPL-3.0-or-later
"""cyclonus, which evaluates NetworkPolicies by their semantics (https://github.com/mattfenwick/cyclonus), built from its pinned Go module."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..testbed import toolchain
from ..testbed.shell import output, run
from .cluster import Peer
from .errors import BadAnswer
from .table import Port

__all__ = ["Query", "build", "evaluate"]

MODULE = Path(__file__).parent / "modules"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "sophia-testbed"


@dataclass(frozen=True)
class Query:
    """May the source open a connection to this port of the target?"""

    source: Peer
    target: Peer
    port: Port
    port_name: str = ""


def build() -> Path:
    """The program, built where the cache lacks it. CommandFailed with the compiler's last lines."""
    definition = [(MODULE / name).read_text() for name in ("go.mod", "go.sum")]
    go, version = toolchain.find(toolchain.needed(definition[:1]), CACHE)
    target = CACHE / "builds" / f"cyclonus-{hashlib.sha256(repr([*definition, version]).encode()).hexdigest()[:16]}" / "cyclonus"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_suffix(".part")
        environ = {"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly -buildvcs=false", "GOTOOLCHAIN": "local"}
        run(go, "build", "-trimpath", "-ldflags", "-s -w", "-o", part, "github.com/mattfenwick/cyclonus/cmd/cyclonus", cwd=MODULE, environ=environ)
        part.rename(target)
    return target


def evaluate(program: Path, policies: dict[str, Any], queries: Sequence[Query]) -> list[bool]:
    """For each query whether the policies allow it. BadAnswer where the program does not answer each of them."""
    with tempfile.TemporaryDirectory() as folder:
        traffic, given = Path(folder) / "traffic.json", Path(folder) / "policies"
        given.mkdir()
        traffic.write_text(json.dumps([_traffic(query) for query in queries]))
        (given / "policies.yaml").write_text(json.dumps(_plain(policies)))
        said = output(program, "analyze", "--policy-path", given, "--mode", "query-traffic", "--traffic-path", traffic)
    answers = [answer == "true" for answer in re.findall(r"is allowed\?\s*\|\s*(true|false)", said.lower())]
    if len(answers) != len(queries):
        raise BadAnswer(f"cyclonus answered {len(answers)} of {len(queries)} questions")
    return answers


def _plain(policies: dict[str, Any]) -> dict[str, Any]:
    """The policies as one NetworkPolicyList, with what it reads of them."""
    return {
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicyList",
        "items": [
            {
                "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "spec": policy["spec"],
                "metadata": {"name": policy["metadata"]["name"], "namespace": policy["metadata"]["namespace"]},
            }
            for policy in policies["items"]
        ],
    }


def _traffic(query: Query) -> dict[str, Any]:
    return {
        "Source": _end(query.source), "Destination": _end(query.target), "ResolvedPort": query.port.number,
        "ResolvedPortName": query.port_name, "Protocol": query.port.protocol,
    }


def _end(peer: Peer) -> dict[str, Any]:
    if not peer.namespace:
        return {"IP": peer.address}
    internal = {"Namespace": peer.namespace, "NamespaceLabels": dict(peer.namespace_labels or {}), "PodLabels": dict(peer.labels or {})}
    return {"IP": peer.address, "Internal": internal}
