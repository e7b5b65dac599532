# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Wrong settings, one a case, and the line in which preflight has to name each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Wrong:
    """``variables`` go over good ones; ``line`` has to be part of one line of the report.

    One that is ``alone`` hides others: without a cluster there is no capacity to judge.
    """

    name: str
    line: str
    variables: dict[str, Any] = field(default_factory=dict)
    alone: bool = False


OPEN = "0.0.0.0/0"
DENIED = {"name": "web", "namespace": "sophia-settings", "labels": {"app": "web"}}
DNS = {"name": "the DNS", "namespace": "kube-system", "labels": {"k8s-app": "kube-dns"}}
POSTGRES = {"name": "postgres", "namespace": "sophia-settings", "labels": {"app": "postgres"}}
PROXIES = {"name": "the proxies", "namespace": "envoy-gateway-system", "labels": {"app.kubernetes.io/component": "proxy"}}
# The namespace sophia-settings is closed, as every one of ours is, and nothing in it opens a way.
PATHS = [
    {"from": DENIED, "to": DNS, "ports": [53], "protocol": "UDP"},
    {"from": DENIED, "to": {"name": "OpenRouter", "address": "104.18.2.115"}, "ports": [443]},
    {"from": DENIED, "to": POSTGRES, "ports": [5432]},
    {"from": PROXIES, "to": DENIED, "ports": [8080]},
]

CASES = [
    # Settings
    Wrong("no_domain", "sophia_domain is not set", {"sophia_domain": ""}),
    Wrong("bad_domain", "sophia_domain: sophia_test is not a domain name", {"sophia_domain": "sophia_test"}),
    Wrong("example_domain", "sophia_domain: sophia.example.com is a name for examples", {"sophia_domain": "sophia.example.com"}),
    Wrong("no_image", "sophia_image is not set", {"sophia_image": ""}),
    Wrong("bad_image", "sophia_image: 10.77.0.1:5000/Sophia is not the name of an image", {"sophia_image": "10.77.0.1:5000/Sophia"}),
    Wrong("latest_image", "sophia_image: sophia:latest has the tag latest", {"sophia_image": "sophia:latest"}),
    Wrong("bad_namespace", "sophia_namespace: Sophia_Local is not a name that Kubernetes takes", {"sophia_namespace": "Sophia_Local"}, alone=True),
    Wrong("no_source_ranges", "network_source_ranges is not set", {"network_source_ranges": []}),
    Wrong("open_source_ranges", f"network_source_ranges: {OPEN} has {OPEN}, which lets in the whole internet", {"network_source_ranges": [OPEN]}),
    Wrong("no_cidr", "network_source_ranges: 10.77.0.1/24 has 10.77.0.1/24, which is not a CIDR", {"network_source_ranges": ["10.77.0.1/24"]}),
    Wrong("open_admin", f"network_admin_source_ranges: {OPEN} has {OPEN}", {"network_admin_source_ranges": [OPEN]}),
    Wrong("no_weight", "network_gateway_weights: gateway gives no service any weight", {"network_gateway_weights": {"gateway": 0}}),
    Wrong("no_replicas", "gateway_replicas: 0 is 0", {"gateway_replicas": 0}),
    Wrong("bad_upstream", "gateway_upstream_url: openrouter.ai/api/v1 is not an http or https URL", {"gateway_upstream_url": "openrouter.ai/api/v1"}),
    # Secrets
    Wrong("no_openrouter_key", "there is no Secret openrouter-secrets and nothing to make it from", {"secrets_openrouter_key": ""}),
    # The cluster
    Wrong("no_kubeconfig", "no Kubernetes API answers", {"sophia_kubeconfig": "/nowhere/kubeconfig"}, alone=True),
    Wrong("no_context", "no Kubernetes API answers", {"sophia_context": "nobody's"}, alone=True),
    Wrong("old_cluster", "Kubernetes is v1.", {"preflight_kubernetes_version": "1.99"}),
    Wrong("no_feature", "the cluster has no Flagger (flagger.app/v9)", {"preflight_features": [{"name": "Flagger", "api": "flagger.app/v9"}]}),
    Wrong("no_gateway_class", "sophia_gateway_class: no GatewayClass nginx", {"sophia_gateway_class": "nginx"}),
    Wrong("no_issuer", "network_issuer: no ClusterIssuer nobody", {"network_issuer": {"kind": "ClusterIssuer", "name": "nobody"}}),
    Wrong("no_issuer_named", "network_issuer is not set", {"network_issuer": {"kind": "ClusterIssuer", "name": ""}}),
    Wrong("no_storage_class", "sophia_storage_class: no StorageClass gp3; there are", {"sophia_storage_class": "gp3"}),
    Wrong("no_shared_class", "sophia_shared_storage_class: no StorageClass efs; there are", {"sophia_shared_storage_class": "efs"}),
    # Capacity
    Wrong("too_little_gpu", "the cluster has 8 nvidia.com/gpu free, needed are 40", {"preflight_pools": {"": {"nvidia.com/gpu": 40}}}),
    Wrong("too_little_cpu", " cpu free, needed are 5000", {"preflight_pools": {"": {"cpu": 5000}}}),
    Wrong("too_little_memory", " memory free, needed are 4096.0 GiB", {"preflight_pools": {"": {"memory": "4Ti"}}}),
    Wrong("no_pool", "node pool memory has 0 ready nodes, needed are 2", {"preflight_pools": {"memory": {"nodes": 2}}}),
    Wrong("no_quantity", "preflight_pools: memory of the cluster: not a quantity: '4 GB'", {"preflight_pools": {"": {"memory": "4 GB"}}}),
    Wrong(
        "too_large_a_pod",
        "pods fit; needs 2048.0 GiB memory",
        {"monitoring_resources": {"requests": {"cpu": "50m", "memory": "2Ti"}, "limits": {"memory": "2Ti"}}},
    ),
    # Manifests
    Wrong("bad_resources", "is refused", {"monitoring_resources": {"requests": {"memory": "much"}}}),
    Wrong(
        "bad_volume",
        "is refused",
        {"monitoring_storage": "twenty", "monitoring_resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}}},
    ),
    # Network paths
    Wrong("no_dns", "the way from web to the DNS on UDP 53 is cut: egress of web is limited by default-deny", {"preflight_paths": PATHS}),
    Wrong("no_way_to_openrouter", "the way from web to OpenRouter on TCP 443 is cut: egress of web", {"preflight_paths": PATHS}),
    Wrong("no_way_to_postgres", "the way from web to postgres on TCP 5432 is cut: ingress of postgres", {"preflight_paths": PATHS}),
    Wrong("no_way_from_the_proxies", "the way from the proxies to web on TCP 8080 is cut: ingress of web", {"preflight_paths": PATHS}),
    # Models
    Wrong(
        "unknown_model",
        "OpenRouter does not offer nobody/no-model",
        {"preflight_models_file": "{{ settings_folder }}/models.yml", "preflight_models": True, "preflight_openrouter_url": "{{ settings_openrouter }}"},
    ),
]


def together(cases: Sequence[Wrong]) -> dict[str, list[Wrong]]:
    """Put cases that set different variables on one host, so that few runs judge many and all have to be named at once."""
    hosts: list[list[Wrong]] = []
    for case in cases:
        fitting = [host for host in hosts if not any(_clash(case, other) for other in host)]
        if fitting:
            fitting[0].append(case)
        else:
            hosts.append([case])
    return {f"wrong-{number}": host for number, host in enumerate(hosts, start=1)}


def _clash(one: Wrong, other: Wrong) -> bool:
    shared = one.variables.keys() & other.variables.keys()
    return one.alone or other.alone or any(one.variables[name] != other.variables[name] for name in shared)
