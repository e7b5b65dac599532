# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What preflight finds wrong with a cluster and with the settings for it, each in one line."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.sophia.platform.plugins.filter.preflight_findings import FilterModule
from ansible_collections.sophia.platform.plugins.module_utils._preflight.values import KINDS, judge_values

LABELS = {"app.kubernetes.io/name": "gateway", "app.kubernetes.io/part-of": "sophia"}
DNS = {"name": "the cluster's DNS", "namespace": "kube-system", "labels": {"k8s-app": "kube-dns"}}


def node(name: str = "a", **allocatable: str) -> dict[str, Any]:
    resources = {"cpu": "4", "memory": "8Gi", "pods": "110", **allocatable}
    return {
        "metadata": {"name": name, "labels": {"pool": "general"}},
        "spec": {},
        "status": {"allocatable": resources, "conditions": [{"type": "Ready", "status": "True"}]},
    }


def gateway(replicas: int = 2, cpu: str = "1", **metadata: Any) -> dict[str, Any]:
    pod = {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}, "ports": [{"name": "metrics", "containerPort": 9090}]}]}
    template = {"metadata": {"labels": LABELS, **metadata}, "spec": pod}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "gateway", "namespace": "app"},
        "spec": {"replicas": replicas, "template": template},
    }


def policy(spec: dict[str, Any], name: str = "gateway", namespace: str = "app") -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}


def lines(seen: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    found = FilterModule().filters()["preflight_findings"]({"version": "v1.34.4", "nodes": [node()], **seen}, wanted)
    return [item["line"] for item in found]


def test_a_cluster_that_has_everything_has_no_findings() -> None:
    seen = {
        "apis": ["policy/v1"],
        "manifests": [gateway()],
        "objects": [{"kind": "GatewayClass", "metadata": {"name": "envoy"}, "status": {"conditions": [{"type": "Accepted", "status": "True"}]}}],
        "secrets": [{"name": "openrouter-secrets", "keys": ["primary"]}],
    }
    wanted = {
        "version": "1.30",
        "features": [{"name": "budgets", "api": "policy/v1"}],
        "objects": [{"kind": "GatewayClass", "name": "envoy", "setting": "sophia_gateway_class"}],
        "secrets": [{"name": "openrouter-secrets", "keys": ["primary"]}],
        "pools": {"": {"cpu": 4, "nodes": 1}, "general": {"cpu": 4}},
        "pool_label": "pool",
        "dns": DNS,
    }
    assert lines(seen, wanted) == []


@pytest.mark.parametrize(
    ("seen", "wanted", "line"),
    [
        ({"version": "v1.29.3"}, {"version": "1.30"}, "Kubernetes is v1.29.3, needed is 1.30; upgrade the cluster"),
        ({}, {"features": [{"name": "Gateway API", "api": "g/v1", "hint": "install it"}]}, "the cluster has no Gateway API (g/v1); install it"),
        (
            {"objects": [{"kind": "StorageClass", "metadata": {"name": "slow"}}]},
            {"objects": [{"kind": "StorageClass", "name": "fast", "setting": "sophia_storage_class"}]},
            "sophia_storage_class: no StorageClass fast; there are slow",
        ),
        (
            {
                "objects": [
                    {"kind": "ClusterIssuer", "metadata": {"name": "ca"}, "status": {"conditions": [{"type": "Ready", "status": "False", "reason": "Err"}]}}
                ]
            },
            {"objects": [{"kind": "ClusterIssuer", "name": "ca", "setting": "network_issuer"}]},
            "network_issuer: ClusterIssuer ca: not Ready (Err)",
        ),
        (
            {"secrets": []},
            {"secrets": [{"name": "s", "keys": ["primary"], "hint": "give it"}]},
            "there is no Secret s and nothing to make it from; give it",
        ),
        ({"secrets": [{"name": "s", "keys": ["other"]}]}, {"secrets": [{"name": "s", "keys": ["primary"]}]}, "Secret s lacks primary"),
        ({"nodes": []}, {}, "no node is ready to take pods; look at kubectl get nodes"),
        (
            {},
            {"pools": {"gpu": {"nodes": 3}}, "pool_label": "pool"},
            "node pool gpu has 0 ready nodes, needed are 3; add nodes (pool=gpu), or ask for less in preflight_pools",
        ),
        ({}, {"pools": {"": {"memory": "1Ti"}}}, "the cluster has 8.0 GiB memory free, needed are 1024.0 GiB; add nodes, or ask for less in preflight_pools"),
        ({}, {"pools": {"": {"memory": "much"}}}, "preflight_pools: memory of the cluster: not a quantity: 'much'; write 500m, 2, 512Mi or 1e3"),
        (
            {"manifests": [gateway(replicas=5, cpu="2")]},
            {},
            "app/gateway: 2 of 5 pods fit; needs 2 cpu, the most that one node has left is 0; add nodes, or ask for less",
        ),
        (
            {"manifests": [gateway(cpu="a lot")]},
            {},
            "what the workloads ask for cannot be read: not a quantity: 'a lot'; write 500m, 2, 512Mi or 1e3; correct their resources",
        ),
        (
            {
                "manifests": [gateway()],
                "tried": [gateway()],
                "answers": [{"error": {"msg": 'Failed to apply object: {"kind":"Status","message":"it is\\n wrong"}\n'}}],
            },
            {},
            "Deployment app/gateway is refused: it is wrong",
        ),
        (
            {"manifests": [gateway(), policy({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"ports": [{"port": 443}]}]})]},
            {"dns": DNS},
            "the way from gateway to the cluster's DNS on UDP 53 is cut: egress of gateway is limited by gateway in app, none of which allows it; "
            "allow it in that service's paths",
        ),
        (
            {
                "manifests": [gateway(annotations={"prometheus.io/scrape": "true", "prometheus.io/port": "9090"})],
                "policies": [policy({"podSelector": {}}, "deny")],
            },
            {"prometheus": {"name": "prometheus", "namespace": "watch"}},
            "the way from prometheus to gateway on TCP 9090 is cut: ingress of gateway is limited by deny in app, none of which allows it; "
            "allow it in that service's paths",
        ),
        (
            {"manifests": [], "policies": [policy({"podSelector": {}, "policyTypes": ["Egress"]}, "deny")]},
            {"paths": [{"from": {"name": "gateway", "namespace": "app"}, "to": {"name": "OpenRouter", "address": "104.18.2.115"}, "ports": [443]}]},
            "the way from gateway to OpenRouter on TCP 443 is cut: egress of gateway is limited by deny in app, none of which allows it; "
            "allow it in that service's paths",
        ),
        ({}, {"settings": [{"name": "sophia_domain", "kind": "domain", "value": "not a domain"}]}, "sophia_domain: not a domain is not a domain name"),
    ],
)
def test_each_problem_has_its_line(seen: dict[str, Any], wanted: dict[str, Any], line: str) -> None:
    assert line in lines(seen, wanted)


def test_a_policy_that_will_be_replaced_does_not_count() -> None:
    old = policy({"podSelector": {}, "policyTypes": ["Egress"]})
    new = policy({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{}]})
    assert lines({"manifests": [gateway(), new], "policies": [old]}, {"dns": DNS}) == []


def test_storage_that_is_claimed_already_is_not_asked_for_again() -> None:
    claim = {"metadata": {"name": "data"}, "spec": {"storageClassName": "fast", "resources": {"requests": {"storage": "100Gi"}}}}
    store = {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db", "namespace": "app"}}
    store["spec"] = {"replicas": 2, "volumeClaimTemplates": [claim], "template": {"metadata": {"labels": LABELS}, "spec": {"containers": []}}}
    seen = {
        "manifests": [store],
        "storage_classes": [{"kind": "StorageClass", "metadata": {"name": "fast"}}],
        "storage_capacities": [{"storageClassName": "fast", "capacity": "150Gi"}],
    }
    assert lines(seen, {}) == ["storage class fast has 150.0 GiB free, needed are 200.0 GiB; add disks or ask for less"]
    assert lines({**seen, "claims": [{"metadata": {"namespace": "app", "name": "data-db-0"}}]}, {}) == []
    assert "app/data-db-0 wants storage class fast, which the cluster does not have; there are: none" in lines({**seen, "storage_classes": []}, {})


def test_what_the_absence_of_an_api_explains_is_told_once() -> None:
    route = {"apiVersion": "g/v1", "kind": "HTTPRoute", "metadata": {"name": "api", "namespace": "app"}}
    answers = [{"error": {"msg": "Failed to find exact match for g/v1.HTTPRoute by [kind, name, singularName, shortNames]"}}]
    seen = {"manifests": [route], "tried": [route], "answers": answers}
    assert lines(seen, {"features": [{"name": "G", "api": "g/v1"}]}) == ["the cluster has no G (g/v1)"]
    assert lines(seen, {}) == ["HTTPRoute app/api is refused: the cluster does not know HTTPRoute (g/v1)"]


def test_a_setting_is_told_once() -> None:
    wanted = {"settings": [{"name": "sophia_domain", "kind": "domain", "value": ""}]}
    assert lines({"said": ["sophia_domain: nothing is not a domain name", "other: wrong"]}, wanted) == ["sophia_domain is not set", "other: wrong"]


def test_without_a_cluster_settings_are_judged_all_the_same() -> None:
    wanted = {"settings": [{"name": "sophia_image", "kind": "image", "value": "x:latest"}], "version": "1.30"}
    found = lines({"version": "", "said": ["no Kubernetes API answers"]}, wanted)
    assert found == ["sophia_image: x:latest has the tag latest, so nobody knows what it will be", "no Kubernetes API answers"]


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        ("domain", ["sophia.test", "a-b.example.com.au"], ["localhost", "-a.test", "a..b", "a_b.test", "sophia.example.com", "x" * 64 + ".test"]),
        ("name", ["sophia-production", "a"], ["Sophia", "a_b", "-a", "a" * 64]),
        ("image", ["registry:5000/a/b:1", "a@sha256:" + "0" * 64, "ghcr.io/a/b_c:v1.2"], ["a b:1", "registry:5000/a", "a:latest", "A:1", "a@sha256:0"]),
        ("url", ["https://openrouter.ai/api/v1", "http://10.0.0.1:8787"], ["openrouter.ai", "ftp://x", "https://u:p@x"]),
        ("ranges", [["10.0.0.0/8", "::1/128"], ["0.0.0.0/0"]], [["10.0.0.1/8"], ["10.0.0"], ["all"]]),
        ("closed_ranges", [["10.0.0.0/8"]], [["0.0.0.0/0"], ["::/0"]]),
        ("quantity", ["500m", "1Gi", 2], ["0", "-1", "1 Gi", "much"]),
        ("count", [0, "3"], [-1, "three", 1.5]),
        ("positive", [1], [0]),
        ("weights", [{"a": 90, "b": 10}], [{"a": 0}, {"a": -1}, {"a": "x"}, "a", [1]]),
    ],
)
def test_values(kind: str, good: list[Any], bad: list[Any]) -> None:
    assert [KINDS[kind](value) for value in good] == [None] * len(good)
    assert all(KINDS[kind](value) for value in bad)


def test_an_empty_value_is_an_error_where_one_is_required() -> None:
    settings = [{"name": "a", "kind": "domain", "value": "", "hint": "say it"}, {"name": "b", "kind": "ranges", "value": [], "required": False}]
    assert [finding.as_line() for finding in judge_values(settings)] == ["a is not set; say it"]
