# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules gpu_nodepool and gpu_nodepool_info against the sandbox over HTTP."""

from __future__ import annotations

import importlib
import json
import pathlib
import urllib.request

import pytest

from ansible_collections.sophia.platform.plugins.module_utils._lambda_cloud.journal import locked
from ansible_collections.sophia.platform.plugins.module_utils._lambda_cloud.pace import key_name
from ansible_collections.sophia.platform.plugins.modules import gpu_nodepool, gpu_nodepool_info

ROOT = pathlib.Path(__file__).resolve().parents[5]
TARGET = ROOT / "tests/integration/targets/gpu_nodepool/tasks"
SECRET = "bm90IGEga2V5LCBidXQgYXMgc2VjcmV0"
HOST_KEY = {
    "private_key": f"-----BEGIN OPENSSH PRIVATE KEY-----\n{SECRET}\n-----END OPENSSH PRIVATE KEY-----\n",
    "public_key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ2rRk1l pool",
}


@pytest.fixture
def common(cloud, tmp_path):
    return {
        "api_url": cloud.url + "/api/v1",
        "api_key": cloud.api_key,
        "state_dir": str(tmp_path),
        "request_interval": 0,
        "launch_interval": 0,
        "api_retries": 1,
    }


@pytest.fixture
def pool(common, run_module):
    def run(**args):
        wanted = {
            "name": "serving",
            "count": 2,
            "instance_types": ["gpu_1x_a10", "gpu_1x_a6000"],
            "ssh_key": "ops",
            "wait_sleep": 0.05,
            "reconcile_timeout": 0.5,
        }
        return run_module(gpu_nodepool, **{**common, **wanted, **args})

    return run


def alive(cloud):
    return [row for row in cloud.control("truth")["instances"] if row["alive"]]


def test_a_pool_is_made_as_check_mode_says(cloud, pool):
    foretold = pool(check=True, diff=True, max_price_per_hour="1.20")
    assert foretold.result["changed"] and not foretold.failed and alive(cloud) == []
    assert foretold.result["cost_per_hour"] == "2.18"
    made = pool(diff=True, max_price_per_hour="1.20")
    assert made.result["diff"] == foretold.result["diff"] and made.result["plan"] == foretold.result["plan"]
    assert [host["status"] for host in made.result["instances"]] == ["active", "active"]
    assert {row["type"] for row in alive(cloud)} == {"gpu_1x_a6000"}
    again = pool(diff=True, max_price_per_hour="1.20")
    assert not again.result["changed"] and again.result["diff"]["before"] == again.result["diff"]["after"]


def test_ranked_takes_the_first_type_in_the_first_region(cloud, pool):
    made = pool(strategy="ranked", regions=["us-south-1", "us-east-1"], count=1, wait=False)
    assert [(host["instance_type"], host["region"]) for host in made.result["instances"]] == [("gpu_1x_a10", "us-south-1")]


def test_another_region_is_tried_right_after_a_refusal(cloud, pool):
    rule = {"fault": {"kind": "insufficient_capacity"}, "match": {"region": "us-south-1"}}
    cloud.control("faults", [rule])
    made = pool(strategy="ranked", regions=["us-south-1", "us-east-1"], instance_types=["gpu_1x_a10"], count=1, wait=False)
    assert [host["region"] for host in made.result["instances"]] == ["us-east-1"]
    assert cloud.control("truth")["calls"]["POST /instance-operations/launch"] == 2


@pytest.mark.parametrize("kind", ["reset_after_success", "status_after_success"])
def test_a_lost_answer_makes_no_second_host(cloud, pool, kind):
    cloud.control("faults", [{"fault": {"kind": kind}, "match": {"path": "/launch"}}])
    made = pool(count=2)
    assert made.result["changed"] and len(made.result["instances"]) == 2
    assert cloud.control("truth")["launched"] == 2


def test_what_cannot_be_had_is_said(cloud, pool):
    cloud.control("seed", {"capacity": {"gpu_1x_a10": {"us-east-1": 1}}})
    args = {"instance_types": ["gpu_1x_a10"], "wait_timeout": 1}
    short = pool(**args)
    assert short.failed and short.result["failure"]["code"] == "wait_timeout" and short.result["shortfall"] == 1
    assert short.result["changed"] and len(short.result["instances"]) == 1
    partial = pool(allow_partial=True, **args)
    assert not partial.failed and partial.result["shortfall"] == 1 and partial.result["waiting_for"] == "capacity"


def test_a_ceiling_and_a_budget_hold(cloud, pool):
    dear = pool(max_price_per_hour="1.08")
    assert dear.result["failure"]["code"] == "max_price_per_hour" and alive(cloud) == []
    over = pool(budget_usd_per_hour="2.17")
    assert over.result["failure"]["code"] == "budget_usd_per_hour" and len(alive(cloud)) == 1
    assert not pool(budget_usd_per_hour="2.18").failed
    assert cloud.control("truth")["peak_cents_per_hour"] == 218


def test_scaling_in_needs_a_drain_and_goes_by_price_and_ordinal(cloud, pool):
    pool(count=1, instance_types=["gpu_1x_a10"])
    pool(count=3, strategy="cheapest")
    asked = pool(count=1, drain_required=True, max_deletions=2)
    names = [host["name"] for host in asked.result["instances"]]
    assert not asked.result["changed"] and asked.result["to_drain"] == [names[0], names[2]]
    done = pool(count=1, drain_required=True, drained=asked.result["to_drain"], max_deletions=2)
    assert done.result["changed"] and [host["name"] for host in done.result["instances"]] == [names[1]]


def test_mass_deletion_is_refused(cloud, pool):
    pool(count=3)
    assert pool(count=1).result["failure"]["code"] == "too_many_deletions"
    assert pool(count=0, min_count=1).result["failure"]["code"] == "below_min_count"
    assert pool(state="absent").result["failure"]["code"] == "too_many_deletions"
    assert len(alive(cloud)) == 3
    assert pool(count=3, protected=["serving-0-x"], max_deletions=0).result["changed"] is False
    ended = pool(state="absent", force=True)
    assert ended.result["changed"] and ended.result["instances"] == [] and alive(cloud) == []


def test_protected_hosts_stay(cloud, pool):
    hosts = pool(count=2).result["instances"]
    kept = hosts[1]["name"]
    done = pool(count=1, protected=[kept])
    assert [host["name"] for host in done.result["instances"]] == [kept]
    assert pool(count=0, protected=[kept]).result["failure"]["code"] == "protected"


def test_unhealthy_hosts_are_replaced_within_a_budget(cloud, pool):
    hosts = pool(count=2).result["instances"]
    cloud.control(f"instances/{hosts[0]['id']}", {"status": "unhealthy"})
    assert not pool(replace_unhealthy=False).result["changed"]
    healed = pool()
    assert [step["why"] for step in healed.result["steps"]] == ["unhealthy", "missing"]
    assert [host["tags"]["sophia-ordinal"] for host in healed.result["instances"]] == ["1", "2"]
    assert healed.result["steps"] == healed.result["plan"]["steps"]
    cloud.control("faults", [{"fault": {"kind": "unhealthy"}}])
    assert pool(count=3, max_relaunches=1).result["failure"]["code"] == "too_many_relaunches"


def test_a_host_that_is_called_broken_is_replaced_once(cloud, pool):
    (host,) = pool(count=1).result["instances"]
    healed = pool(count=1, broken=[host["id"]])
    assert [step["why"] for step in healed.result["steps"]] == ["broken", "missing"]
    (other,) = healed.result["instances"]
    assert other["id"] != host["id"]
    assert not pool(count=1, broken=[host["id"]]).result["changed"]


def test_drift_is_replaced_one_at_a_time(cloud, pool):
    pool(budget_usd_per_hour="3.30")
    changed = pool(user_data="#!/bin/sh\n", tags={"team": "ml"}, budget_usd_per_hour="3.30", max_deletions=2)
    assert [step["do"] for step in changed.result["steps"]] == ["launch", "delete", "launch", "delete"]
    assert all(host["tags"]["team"] == "ml" for host in changed.result["instances"])
    assert cloud.control("truth")["peak_cents_per_hour"] == 327
    assert not pool(user_data="#!/bin/sh\n", tags={"team": "ml"}).result["changed"]
    assert not pool(user_data="#!/bin/sh\ntrue\n", replace_drifted=False).result["changed"]


def test_file_systems_and_rulesets_bind_to_their_region(cloud, pool):
    rules = [{"name": "ssh", "region": region} for region in ("us-west-1", "us-east-1")]
    cloud.control("seed", {"file_systems": [{"name": "models", "region": "us-west-1"}], "firewall_rulesets": rules})
    made = pool(count=1, filesystems=["models"], firewall_rulesets=["ssh"], wait=False)
    assert [(host["region"], host["filesystems"]) for host in made.result["instances"]] == [("us-west-1", ["models"])]
    assert pool(count=1, filesystems=["none"]).result["failure"]["code"] == "invalid_input"


def test_hosts_of_others_are_left_alone(cloud, pool, common, run_module):
    pool(count=1)
    pool(name="serving-2", count=1)
    pool(state="absent", force=True)
    assert [row["tags"]["sophia-pool"] for row in alive(cloud)] == ["serving-2"]
    info = run_module(gpu_nodepool_info, **common, gather=["instances"])
    (host,) = info.result["instances"]
    assert info.result["pools"] == [{"name": "serving-2", "hosts": [host["name"]], "statuses": {"active": 1}, "cost_per_hour": "1.09"}]


def test_a_name_of_the_pool_without_its_tags_stops_it(cloud, pool):
    made = pool(count=1, name="other", wait=False).result["instances"][0]
    body = json.dumps({"region_name": "us-east-1", "instance_type_name": "gpu_1x_a10", "ssh_key_names": ["ops"], "name": "serving-0-" + made["name"][-8:]})
    request = urllib.request.Request(
        f"{cloud.url}/api/v1/instance-operations/launch", data=body.encode(), headers={"Authorization": f"Bearer {cloud.api_key}"}
    )
    urllib.request.urlopen(request, timeout=10).close()
    assert pool(count=1).result["failure"]["code"] == "foreign_host" and len(alive(cloud)) == 2


def test_one_run_at_a_time(cloud, pool, tmp_path):
    folder = tmp_path / key_name(cloud.api_key)
    folder.mkdir()
    with locked(folder / "pool-serving.lock"):
        assert pool().result["failure"]["code"] == "pool_locked"


def test_a_damaged_journal_is_not_guessed_at(cloud, pool, tmp_path):
    pool(count=1, wait=False)
    journal = tmp_path / key_name(cloud.api_key) / "pool-serving.json"
    journal.write_text("{", encoding="utf-8")
    assert pool().result["failure"]["code"] == "journal_unreadable" and len(alive(cloud)) == 1


def test_secrets_stay_where_they_belong(cloud, pool, tmp_path):
    made = pool(count=1, ssh_host_key=HOST_KEY, user_data="#!/bin/sh\necho hello\n", diff=True)
    host = made.result["instances"][0]
    assert made.result["known_hosts"] == [f"{host['ip']} ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ2rRk1l"]
    sent = cloud.control("truth?user_data=1")["instances"][0]["user_data"]
    assert "ed25519_private" in sent or "multipart" in sent
    kept = "".join(path.read_text(encoding="utf-8") for path in tmp_path.rglob("*") if path.is_file())
    wrong = pool(count=1, api_key="secret_unit_9876543210.fedcbafedcbafedcbafedcba")
    assert wrong.result["failure"]["code"] == "global/invalid-api-key"
    for secret in (SECRET, cloud.api_key, "fedcbafedcba", "jupyter"):
        assert secret not in made.output + wrong.output + kept


def test_there_is_a_market(common, cloud, run_module):
    market = run_module(gpu_nodepool_info, **common, gather=["instance_types"]).result["instance_types"]
    prices = [float(item["price_per_hour"]) for item in market]
    assert prices == sorted(prices) and all(item["regions_with_capacity"] for item in market)


@pytest.mark.parametrize(
    "args",
    [
        {"name": "Serving"},
        {"count": -1},
        {"max_surge": 0},
        {"instance_types": []},
        {"max_price_per_hour": "much"},
        {"tags": {"Team": "x"}},
        {"tags": {"sophia-pool": "x"}},
        {"ssh_host_key": {"private_key": "x", "public_key": "nonsense"}},
        {"ssh_host_key": HOST_KEY, "user_data": "neither script nor configuration"},
        {"api_key": " "},
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_asked(cloud, pool, args):
    assert pool(**args).result["failure"]["code"] == "invalid_input"
    assert cloud.control("truth")["calls"] == {}


@pytest.mark.parametrize(("name", "tasks"), [("gpu_nodepool", "examples.yml"), ("gpu_nodepool_info", "examples_info.yml")])
def test_the_target_runs_the_examples(name, tasks):
    module = importlib.import_module(f"ansible_collections.sophia.platform.plugins.modules.{name}")
    assert TARGET.joinpath(tasks).read_text(encoding="utf-8").endswith("\n\n" + module.EXAMPLES.lstrip("\n"))
