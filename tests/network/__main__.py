# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m tests.network [--probe]`: compare the cluster's NetworkPolicies with the table in docs/network.md.

Exits 0 when every way is open or closed as the table says, 1 when one differs, 2 when it cannot be told.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path as File

from ..cluster.platform import Cluster, CommandFailed
from ..testbed.errors import BedError
from . import cyclonus, matrix, probe
from .cluster import OUTSIDE, Kubectl, absent, peers, representatives
from .errors import BadAnswer, NetworkError
from .table import Path, parse

PAGE = File(__file__).parents[2] / "docs/network.md"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.network", description=__doc__)
    parser.add_argument("--kubeconfig", default="", help="default: that of KUBECONFIG, else the test bed's")
    parser.add_argument("--kubectl", default="", help="default: the test bed's, else that of the PATH")
    parser.add_argument("--namespaces", nargs="+", default=["sophia-local", "sophia-monitoring"], help="the namespaces whose pods are judged")
    parser.add_argument("--ingress", default="envoy-gateway-system", help="the namespace of the Gateway's proxies")
    parser.add_argument("--probe", action="store_true", help="try the ways for real, where the cluster enforces policies")
    given = parser.parse_args()
    try:
        return compare(given)
    except (NetworkError, BedError, CommandFailed) as error:
        print(error, file=sys.stderr)
        return 2


def compare(given: argparse.Namespace) -> int:
    program, _, kubeconfig = Cluster.of().command
    kubectl = Kubectl(given.kubectl or program, given.kubeconfig or kubeconfig)
    namespaces, policies = kubectl.read("namespaces")["items"], kubectl.read("networkpolicies.networking.k8s.io")
    everybody = peers(kubectl.read("pods")["items"], namespaces, given.ingress)
    # Of the platform only what is in the judged namespaces; another platform in the cluster is one of the others.
    judged = [peer for peer in everybody if peer.namespace in given.namespaces or peer.name in ("dns", "ingress", "any other pod")]
    found = representatives(judged)
    if not any(peer.pod and peer.namespace in given.namespaces for peer in found):
        raise BadAnswer(f"no pod of the platform runs in {', '.join(given.namespaces)}")
    own = {item["metadata"]["name"]: item["metadata"].get("labels", {}) for item in namespaces if item["metadata"]["name"] in given.namespaces}
    found += absent(found, policies["items"], own)
    table = parse(PAGE.read_text(encoding="utf-8"), stand_in=any(peer.name == "openrouter-sandbox" for peer in found))
    asked = matrix.queries(found, table, given.namespaces)
    began = time.monotonic()
    answers = cyclonus.evaluate(cyclonus.build(), policies, asked)
    print(matrix.render(asked, answers))
    wrong = matrix.differences(asked, answers, table)
    names = {peer.name for peer in found} | {peer.name for peer in OUTSIDE}
    untried = sorted({f"{path.source} -> {path.target}" for path in table if not {path.source, path.target} <= names})
    print(f"\n{len(asked)} ways between {len(found)} pods and {len(OUTSIDE)} places outside, {sum(answers)} open, judged by cyclonus over "
          f"{len(policies['items'])} policies in {time.monotonic() - began:.1f} s; rows for pods that do not run: {', '.join(untried) or 'none'}")
    if given.probe:
        wrong += tried(kubectl, [query for query in asked if probe.askable(query)], table)
    print("\n".join(map(str, wrong)) or "every way is as the table says")
    return 1 if wrong else 0


def tried(kubectl: Kubectl, asked: list[cyclonus.Query], table: frozenset[Path]) -> list[matrix.Difference]:
    image = kubectl("get", "pods", "--all-namespaces", "--selector", "app.kubernetes.io/name=gateway,app.kubernetes.io/part-of=sophia",
                    "--output", "jsonpath={.items[0].spec.containers[0].image}")
    if not probe.enforces(kubectl, image):
        print("the cluster admits policies and does not enforce them, so nothing was tried for real")
        return []
    answers = probe.probe(kubectl, asked)
    print(f"{len(asked)} ways tried for real, {sum(answers)} open")
    return matrix.differences(asked, answers, table)


if __name__ == "__main__":
    sys.exit(main())
