# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a rollout does next, and what a canary and its route look like."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.sophia.platform.plugins.filter.rollout import canary_of, concerns, frozen_by, rollout_plan, weighted_rules

STAGES = [5, 10, 25, 50, 100]
ACTIVE = {"version": "two", "phase": "stage", "percent": 10, "passed": [5], "holder": "one", "updated": 1000}


def plan(state, version="two", now=1010.0, holder="other", **options):
    return rollout_plan(state, version, STAGES, now, holder, **options)


@pytest.mark.parametrize(
    ("state", "options", "do", "stages"),
    [
        ({}, {}, "begin", STAGES),
        ({}, {"until": 25}, "begin", [5, 10, 25]),
        ({"phase": "done", "version": "two"}, {}, "nothing", []),
        ({"phase": "done", "version": "one"}, {}, "begin", STAGES),
        (ACTIVE, {}, "refuse", []),
        (ACTIVE, {"holder": "one"}, "resume", [10, 25, 50, 100]),
        (ACTIVE, {"take_over": True}, "resume", [10, 25, 50, 100]),
        (ACTIVE, {"now": 1000.0 + 10_800}, "resume", [10, 25, 50, 100]),
        (ACTIVE, {"version": "three", "take_over": True}, "restart", STAGES),
        ({"phase": "rolled_back", "version": "two"}, {}, "refuse", []),
        ({"phase": "rolled_back", "version": "two"}, {"again": True}, "begin", STAGES),
        ({"phase": "rolled_back", "version": "one"}, {}, "begin", STAGES),
        ({**ACTIVE, "phase": "promote", "passed": STAGES}, {"take_over": True}, "resume", []),
        ({}, {"freeze": [{"reason": "holidays"}]}, "refuse", []),
    ],
)
def test_what_is_done_next(state, options, do, stages):
    found = plan(state, **options)
    assert (found["do"], found["stages"]) == (do, stages)
    assert found["why"]


def test_a_finished_rollout_is_finished_in_a_freeze_too():
    assert plan({"phase": "done", "version": "two"}, freeze=[{}])["do"] == "nothing"


@pytest.mark.parametrize("stages", [[], [5, 50], [50, 5, 100], [0, 100], [5, 5, 100]])
def test_stages_that_do_not_rise_to_all_are_refused(stages):
    with pytest.raises(AnsibleFilterError, match="rise to 100"):
        rollout_plan({}, "two", stages, 0.0, "me")


@pytest.mark.parametrize(
    ("at", "frozen"),
    [("2026-11-27 21:59", False), ("2026-11-27 22:00", True), ("2026-11-28 05:59", True), ("2026-11-28 06:00", False), ("2026-11-28 22:30", False)],
)
def test_a_window_over_midnight_belongs_to_the_day_it_begins_on(at, frozen):
    window = {"days": ["fri"], "start": "22:00", "end": 360, "reason": "night"}
    now = datetime.strptime(at, "%Y-%m-%d %H:%M").replace(tzinfo=timezone.utc).timestamp()
    assert frozen_by([window], now) == ("night" if frozen else "")


@pytest.mark.parametrize("window", [{"days": ["someday"]}, {"start": "25:00"}, {"start": "10"}])
def test_a_window_that_makes_no_sense_is_refused(window):
    with pytest.raises(AnsibleFilterError):
        frozen_by([window], 0.0)


RULES = [
    {"matches": [{"path": {"value": "/v1/agents"}}], "backendRefs": [{"name": "agno-coordinator", "port": 3000, "weight": 1}]},
    {"matches": [{"path": {"value": "/v1"}}], "backendRefs": [{"name": "gateway", "port": 8080, "weight": 1}], "timeouts": {"request": "310s"}},
]


def shares(rules):
    return {reference["name"]: reference["weight"] for reference in rules[1]["backendRefs"]}


def test_only_rules_that_lead_to_the_stable_version_are_shared():
    shifted = weighted_rules(RULES, "gateway", "gateway-canary", 5)
    assert shifted[0] == RULES[0]
    assert shares(shifted) == {"gateway": 95, "gateway-canary": 5}
    assert shifted[1]["backendRefs"][1]["port"] == 8080 and shifted[1]["timeouts"] == {"request": "310s"}
    assert shares(weighted_rules(shifted, "gateway", "gateway-canary", 100)) == {"gateway": 0, "gateway-canary": 100}
    assert shares(weighted_rules(shifted, "gateway", "gateway-canary", 0)) == {"gateway": 100}
    assert weighted_rules(shifted, "gateway", "gateway-canary", 5) == shifted


def test_a_route_that_leads_elsewhere_is_refused():
    with pytest.raises(AnsibleFilterError, match="no rule"):
        weighted_rules(RULES[:1], "gateway", "gateway-canary", 5)


LABELS = {"app.kubernetes.io/name": "gateway", "app.kubernetes.io/part-of": "sophia"}
DEPLOYMENT = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "gateway", "namespace": "n", "uid": "u", "resourceVersion": "7", "labels": LABELS,
                 "annotations": {"deployment.kubernetes.io/revision": "3", "kept": "yes"}},
    "spec": {
        "replicas": 5,
        "selector": {"matchLabels": LABELS},
        "template": {"metadata": {"labels": LABELS}, "spec": {"containers": [{"name": "gateway", "image": "one"}, {"name": "other", "image": "x"}]}},
    },
    "status": {"readyReplicas": 5},
}  # fmt: skip


def test_a_canary_is_selected_by_its_own_name_and_has_the_new_image():
    canary = canary_of(DEPLOYMENT, "gateway", "gateway-canary", image="two", replicas=2)
    name = {"app.kubernetes.io/name": "gateway-canary", "app.kubernetes.io/part-of": "sophia"}
    assert canary["metadata"]["name"] == "gateway-canary" and "uid" not in canary["metadata"] and "status" not in canary
    assert canary["metadata"]["annotations"] == {"kept": "yes"}
    assert canary["metadata"]["labels"]["platform.sophia/rollout-of"] == "gateway"
    assert canary["spec"]["selector"]["matchLabels"] == name == canary["spec"]["template"]["metadata"]["labels"]
    assert [each["image"] for each in canary["spec"]["template"]["spec"]["containers"]] == ["two", "x"]
    assert canary["spec"]["replicas"] == 2
    assert DEPLOYMENT["spec"]["selector"]["matchLabels"] == LABELS


def test_a_service_gets_an_address_of_its_own():
    service = {"kind": "Service", "metadata": {"name": "gateway", "namespace": "n"},
               "spec": {"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "selector": LABELS, "ports": [{"port": 8080, "nodePort": 30000}]}}  # fmt: skip
    spec = canary_of(service, "gateway", "gateway-canary")["spec"]
    assert "clusterIP" not in spec and spec["ports"] == [{"port": 8080}] and spec["selector"]["app.kubernetes.io/name"] == "gateway-canary"


def test_policies_of_others_that_name_the_stable_version_get_a_twin():
    postgres = {"kind": "NetworkPolicy", "metadata": {"name": "postgres", "namespace": "n"},
                "spec": {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "postgres"}},
                         "ingress": [{"from": [{"podSelector": {"matchLabels": LABELS}}]}]}}  # fmt: skip
    other = {"kind": "NetworkPolicy", "metadata": {"name": "redis", "namespace": "n"}, "spec": {"podSelector": {}}}
    assert concerns([postgres, other], "gateway") == [postgres]
    twin = canary_of(postgres, "gateway", "gateway-canary")
    assert twin["metadata"]["name"] == "postgres-gateway-canary"
    assert twin["spec"]["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": "postgres"}
    assert twin["spec"]["ingress"][0]["from"][0]["podSelector"]["matchLabels"]["app.kubernetes.io/name"] == "gateway-canary"
