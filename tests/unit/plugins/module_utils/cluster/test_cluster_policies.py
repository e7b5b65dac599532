# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Network policies: the cases of the API's documentation, and which path is named as cut."""

from __future__ import annotations

import pytest

from ansible_collections.sophia.platform.plugins.module_utils._cluster.policies import Endpoint, Path, cuts, selects

WEB = Endpoint("web", "app", {"name": "web"}, {"team": "a"}, address="10.0.0.1")
STORE = Endpoint("store", "app", {"name": "store"}, {"team": "a"}, address="10.0.0.2", ports={"sql": 5432})
OTHER = Endpoint("other", "else", {"name": "web"}, {"team": "b"}, address="10.0.1.1")
OUTSIDE = Endpoint("the internet", address="104.16.0.1")


def policy(name: str, spec: dict, namespace: str = "app") -> dict:
    return {"metadata": {"name": name, "namespace": namespace}, "spec": spec}


def ingress(*rules: dict, selector: dict | None = None) -> dict:
    return policy("in", {"podSelector": selector or {}, "policyTypes": ["Ingress"], "ingress": list(rules)})


def egress(*rules: dict, selector: dict | None = None) -> dict:
    return policy("out", {"podSelector": selector or {}, "policyTypes": ["Egress"], "egress": list(rules)})


def test_without_policies_everything_is_open() -> None:
    assert cuts([], Path(OUTSIDE, STORE, 5432)) == []


def test_default_deny_cuts_both_sides_and_says_which() -> None:
    denied = [policy("deny", {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]})]
    assert cuts(denied, Path(WEB, STORE, 5432)) == [
        "egress of web is limited by deny in app, none of which allows it",
        "ingress of store is limited by deny in app, none of which allows it",
    ]
    assert cuts(denied, Path(OTHER, STORE, 5432)) == ["ingress of store is limited by deny in app, none of which allows it"]


def test_policies_add_up() -> None:
    policies = [
        ingress(),
        ingress({"from": [{"podSelector": {"matchLabels": {"name": "web"}}}], "ports": [{"port": 5432}]}, selector={"matchLabels": {"name": "store"}}),
    ]
    assert not cuts(policies, Path(WEB, STORE, 5432))
    assert cuts(policies, Path(WEB, STORE, 5433))
    assert cuts(policies, Path(OTHER, STORE, 5432)), "a pod selector alone means the policy's own namespace"


@pytest.mark.parametrize(
    ("peer", "source", "open_"),
    [
        ({"namespaceSelector": {}}, OTHER, True),
        ({"namespaceSelector": {}}, OUTSIDE, False),
        ({"namespaceSelector": {"matchLabels": {"team": "b"}}}, OTHER, True),
        ({"namespaceSelector": {"matchLabels": {"team": "b"}}}, WEB, False),
        ({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "else"}}, "podSelector": {"matchLabels": {"name": "web"}}}, OTHER, True),
        ({"namespaceSelector": {"matchLabels": {"team": "b"}}, "podSelector": {"matchLabels": {"name": "db"}}}, OTHER, False),
        ({"podSelector": {}}, WEB, True),
        ({"podSelector": {}}, OTHER, False),
        ({"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}}, OUTSIDE, True),
        ({"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}}, OTHER, False),
        ({"ipBlock": {"cidr": "::/0"}}, OUTSIDE, False),
    ],
)
def test_peers(peer: dict, source: Endpoint, open_: bool) -> None:
    assert (not cuts([ingress({"from": [peer]})], Path(source, STORE, 5432))) is open_


@pytest.mark.parametrize(
    ("port", "open_"),
    [
        ({}, True),
        ({"port": 5432}, True),
        ({"port": "sql"}, True),
        ({"port": "other"}, False),
        ({"port": 5000, "endPort": 6000}, True),
        ({"port": 5432, "protocol": "UDP"}, False),
    ],
)
def test_ports(port: dict, open_: bool) -> None:
    assert (not cuts([egress({"ports": [port]})], Path(WEB, STORE, 5432))) is open_


def test_policy_types_have_the_documented_defaults() -> None:
    only_ingress = policy("p", {"podSelector": {}})
    assert cuts([only_ingress], Path(WEB, OUTSIDE, 443)) == []
    assert cuts([only_ingress], Path(OUTSIDE, WEB, 80))
    with_egress = policy("p", {"podSelector": {}, "egress": [{"ports": [{"port": 53, "protocol": "UDP"}]}]})
    assert cuts([with_egress], Path(WEB, OUTSIDE, 443))
    assert not cuts([with_egress], Path(WEB, OUTSIDE, 53, "UDP"))


@pytest.mark.parametrize(
    ("expression", "matches"),
    [
        ({"key": "a", "operator": "In", "values": ["1", "2"]}, True),
        ({"key": "a", "operator": "NotIn", "values": ["1"]}, False),
        ({"key": "b", "operator": "NotIn", "values": ["1"]}, True),
        ({"key": "a", "operator": "Exists"}, True),
        ({"key": "b", "operator": "DoesNotExist"}, True),
        ({"key": "b", "operator": "In", "values": []}, False),
    ],
)
def test_selectors(expression: dict, matches: bool) -> None:
    assert selects({"matchExpressions": [expression]}, {"a": "1"}) is matches
