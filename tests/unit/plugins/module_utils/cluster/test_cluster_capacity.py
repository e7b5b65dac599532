# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Quantities, requests and what fits where."""

from __future__ import annotations

from decimal import Decimal

import pytest

from ansible_collections.sophia.platform.plugins.module_utils._cluster.capacity import accepts, free_nodes, shortages, workloads
from ansible_collections.sophia.platform.plugins.module_utils._cluster.quantities import pod_requests, quantity, shown


@pytest.mark.parametrize(
    ("text", "amount"),
    [("500m", "0.5"), ("2", "2"), (4, "4"), ("512Mi", 512 * 2**20), ("1G", 10**9), ("1e3", "1000"), ("1E", 10**18), ("1.5Gi", 3 * 2**29), ("100u", "0.0001")],
)
def test_quantity(text: str, amount: str) -> None:
    assert quantity(text) == Decimal(amount)


@pytest.mark.parametrize("text", ["", "1 Gi", "lots", "1GB", "0x10", "1K", "--1"])
def test_no_quantity(text: str) -> None:
    with pytest.raises(ValueError, match="not a quantity"):
        quantity(text)


def test_shown() -> None:
    assert shown("memory", quantity("1536Mi")) == "1.5 GiB"
    assert shown("cpu", quantity("2500m")) == "2.50"
    assert shown("nvidia.com/gpu", quantity("10")) == "10"


def container(**resources: str) -> dict:
    return {"resources": {"requests": resources}}


def test_requests_of_a_pod_are_what_the_scheduler_counts() -> None:
    spec = {
        "containers": [container(cpu="100m", memory="1Gi"), {"resources": {"limits": {"cpu": "200m"}}}],
        "initContainers": [container(cpu="2"), {**container(cpu="50m"), "restartPolicy": "Always"}],
        "overhead": {"memory": "1Mi"},
    }
    assert pod_requests(spec) == {"cpu": Decimal(2), "memory": Decimal(2**30 + 2**20), "pods": Decimal(1)}


def node(name: str, cpu: str = "4", pool: str = "general", taints: list | None = None, ready: str = "True", **more: str) -> dict:
    return {
        "metadata": {"name": name, "labels": {"pool": pool, "kubernetes.io/hostname": name}},
        "spec": {"taints": taints or []},
        "status": {"allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "10", **more}, "conditions": [{"type": "Ready", "status": ready}]},
    }


def pod(node_name: str, cpu: str, phase: str = "Running", **labels: str) -> dict:
    return {"metadata": {"labels": labels}, "spec": {"nodeName": node_name, "containers": [container(cpu=cpu)]}, "status": {"phase": phase}}


def deployment(name: str, replicas: int, cpu: str, **spec: object) -> dict:
    template = {"spec": {"containers": [container(cpu=cpu)], **spec}}
    return {"kind": "Deployment", "metadata": {"name": name, "namespace": "app"}, "spec": {"replicas": replicas, "template": template}}


def test_free_is_allocatable_less_what_others_request() -> None:
    pods = [pod("a", "1"), pod("a", "1", phase="Succeeded"), pod("a", "2", part="ours"), pod("", "3")]
    (free,) = free_nodes([node("a"), node("b", ready="False")], pods, "pool", {"part": "ours"})
    assert (free.name, free.pool, free.free["cpu"], free.free["pods"]) == ("a", "general", Decimal(3), Decimal(9))


def test_a_cordoned_node_takes_nothing() -> None:
    cordoned = node("a")
    cordoned["spec"]["unschedulable"] = True
    assert free_nodes([cordoned], [], "pool", {}) == []


def test_what_fits_in_sum_but_on_no_node_is_short() -> None:
    nodes = free_nodes([node("a"), node("b")], [], "pool", {})
    (short,) = shortages(workloads([deployment("big", 1, "5")]), nodes)
    assert short.placed == 0
    assert short.reason == "needs 5 cpu, the most that one node has left is 4"
    (short,) = shortages(workloads([deployment("three", 3, "3")]), nodes)
    assert (short.placed, short.workload.replicas) == (2, 3)
    assert shortages(workloads([deployment("fits", 4, "2")]), nodes) == []


def test_workloads_share_the_same_room() -> None:
    nodes = free_nodes([node("a")], [], "pool", {})
    (short,) = shortages(workloads([deployment("one", 1, "3"), deployment("two", 1, "3")]), nodes)
    assert short.workload.name in ("app/one", "app/two")


def test_gpus_go_first_to_those_that_need_them() -> None:
    nodes = free_nodes([node("g", cpu="4", **{"nvidia.com/gpu": "1"})], [], "pool", {})
    router = deployment("router", 1, "1")
    router["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"]["nvidia.com/gpu"] = "2"
    (short,) = shortages(workloads([router]), nodes)
    assert "needs 2 nvidia.com/gpu, the most that one node has left is 1" in short.reason


@pytest.mark.parametrize(
    ("spec", "fits"),
    [
        ({}, False),
        ({"tolerations": [{"key": "gpu", "operator": "Exists"}]}, True),
        ({"tolerations": [{"key": "gpu", "value": "no"}]}, False),
        ({"tolerations": [{"key": "gpu", "value": "yes", "effect": "NoSchedule"}]}, True),
        ({"tolerations": [{"operator": "Exists"}], "nodeSelector": {"pool": "gpu"}}, True),
        ({"tolerations": [{"operator": "Exists"}], "nodeSelector": {"pool": "general"}}, False),
    ],
)
def test_taints_and_selectors(spec: dict, fits: bool) -> None:
    (tainted,) = free_nodes([node("g", pool="gpu", taints=[{"key": "gpu", "value": "yes", "effect": "NoSchedule"}])], [], "pool", {})
    assert accepts(tainted, spec) is fits


@pytest.mark.parametrize(
    ("expression", "fits"),
    [
        ({"key": "pool", "operator": "In", "values": ["general"]}, True),
        ({"key": "pool", "operator": "NotIn", "values": ["general"]}, False),
        ({"key": "gone", "operator": "Exists"}, False),
        ({"key": "gone", "operator": "DoesNotExist"}, True),
        ({"key": "pool", "operator": "Gt", "values": ["1"]}, False),
    ],
)
def test_node_affinity(expression: dict, fits: bool) -> None:
    (plain,) = free_nodes([node("a")], [], "pool", {})
    terms = {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}
    assert accepts(plain, {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}}) is fits
