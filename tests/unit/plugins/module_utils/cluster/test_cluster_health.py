# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What objects' statuses say against them."""

from __future__ import annotations

import pytest

from ansible_collections.sophia.platform.plugins.module_utils._cluster.health import problems


def thing(kind: str, status: dict, generation: int = 1, spec: dict | None = None) -> dict:
    return {"kind": kind, "metadata": {"name": "x", "namespace": "app", "generation": generation}, "spec": spec or {}, "status": status}


def condition(kind: str, status: str = "True", reason: str = "Yes", message: str = "", generation: int = 1) -> dict:
    return {"type": kind, "status": status, "reason": reason, "message": message, "observedGeneration": generation}


GOOD_PARENT = {"parentRef": {"name": "sophia"}, "conditions": [condition("Accepted"), condition("ResolvedRefs")]}
BAD_PARENT = {
    "parentRef": {"name": "sophia"},
    "conditions": [condition("Accepted"), condition("ResolvedRefs", "False", "BackendNotFound", "no\n Service gateway")],
}


@pytest.mark.parametrize(
    ("resource", "said"),
    [
        (thing("Gateway", {"conditions": [condition("Accepted"), condition("Programmed")]}), []),
        (
            thing("Gateway", {"conditions": [condition("Accepted"), condition("Programmed", "False", "AddressNotAssigned", "no address")]}),
            ["Gateway app/x: not Programmed (AddressNotAssigned): no address"],
        ),
        (
            thing(
                "Gateway",
                {
                    "conditions": [condition("Accepted"), condition("Programmed")],
                    "listeners": [
                        {
                            "name": "https",
                            "conditions": [condition("Accepted"), condition("ResolvedRefs", "False", "InvalidCertificateRef"), condition("Programmed")],
                        }
                    ],
                },
            ),
            ["Gateway app/x: listener https: not ResolvedRefs (InvalidCertificateRef)"],
        ),
        (thing("HTTPRoute", {}), ["HTTPRoute app/x: no gateway has taken it"]),
        (thing("HTTPRoute", {"parents": [GOOD_PARENT]}), []),
        (thing("HTTPRoute", {"parents": [BAD_PARENT]}), ["HTTPRoute app/x: gateway sophia: not ResolvedRefs (BackendNotFound): no Service gateway"]),
        (
            thing("HTTPRoute", {"parents": [GOOD_PARENT]}, generation=2),
            [f"HTTPRoute app/x: gateway sophia: its last change has not been looked at yet ({kind})" for kind in ("Accepted", "ResolvedRefs")],
        ),
        (thing("SecurityPolicy", {}), ["SecurityPolicy app/x: no controller has taken it"]),
        (thing("Certificate", {}), ["Certificate app/x: nobody has said whether it is Ready yet"]),
        (thing("Deployment", {"observedGeneration": 1, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}, spec={"replicas": 2}), []),
        (
            thing("Deployment", {"observedGeneration": 1, "replicas": 2, "updatedReplicas": 1, "availableReplicas": 1}, spec={"replicas": 2}),
            ["Deployment app/x: 1 of 2 pods available, 1 of the new description"],
        ),
        (
            thing("Deployment", {"observedGeneration": 1, "replicas": 3, "updatedReplicas": 2, "availableReplicas": 2}, spec={"replicas": 2}),
            ["Deployment app/x: 1 pods of the old description are still there"],
        ),
        (thing("StatefulSet", {"observedGeneration": 1}, generation=2), ["StatefulSet app/x: its last change has not been looked at yet"]),
        (
            thing("Pod", {"containerStatuses": [{"name": "c", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}]}),
            ["Pod app/x: container c waits: ImagePullBackOff: no such image"],
        ),
        (thing("Pod", {"containerStatuses": [{"name": "c", "state": {"waiting": {"reason": "ContainerCreating"}}}]}), []),
        (
            thing(
                "Pod", {"containerStatuses": [{"name": "c", "restartCount": 3, "state": {}, "lastState": {"terminated": {"exitCode": 2, "reason": "Error"}}}]}
            ),
            ["Pod app/x: container c ended with 2 (Error), 3 restarts"],
        ),
        (
            thing("Pod", {"conditions": [condition("PodScheduled", "False", message="0/2 nodes are available")]}),
            ["Pod app/x: not scheduled: 0/2 nodes are available"],
        ),
        (thing("PersistentVolumeClaim", {"phase": "Pending"}, spec={"storageClassName": "fast"}), ["PersistentVolumeClaim app/x: Pending (class fast)"]),
        (
            thing("Job", {"conditions": [condition("Failed", reason="BackoffLimitExceeded", message="too often")]}),
            ["Job app/x: failed (BackoffLimitExceeded): too often"],
        ),
    ],
)
def test_problems(resource: dict, said: list[str]) -> None:
    assert problems(resource) == said
