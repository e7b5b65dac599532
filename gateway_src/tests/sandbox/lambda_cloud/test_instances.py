# SPDX-License-Identifier: GPL-3.0-or-later
"""The life of an instance, what it costs, and how it is launched."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as patience
from hypothesis import strategies as st

from .conftest import LAUNCH, Account

LAUNCHING = "/instance-operations/launch"
TERMINATING = "/instance-operations/terminate"


def test_an_instance_boots_is_active_and_ends(account: Account) -> None:
    instance = account.launch(name="a", tags=[{"key": "team", "value": "ml"}])
    seen = account.call("GET", f"/instances/{instance}")["data"]
    assert seen["status"] == "booting"
    assert "ip" not in seen
    assert "jupyter_token" not in seen
    assert not seen["actions"]["restart"]["available"]
    assert seen["actions"]["terminate"]["available"]
    account.clock.now += 300
    seen = account.call("GET", f"/instances/{instance}")["data"]
    assert seen["status"] == "active"
    assert seen["ip"]
    assert seen["jupyter_token"]
    assert seen["tags"] == [{"key": "team", "value": "ml"}]
    assert "created_at" not in seen
    ended = account.call("POST", TERMINATING, {"instance_ids": [instance]})["data"]["terminated_instances"]
    assert [item["status"] for item in ended] == ["terminating"]
    account.clock.now += 61
    assert account.call("GET", "/instances")["data"][0]["status"] == "terminated"
    account.clock.now += 120
    assert account.call("GET", "/instances")["data"] == []
    assert account.code("GET", f"/instances/{instance}", None, 404) == "global/object-does-not-exist"
    assert account.code("POST", TERMINATING, {"instance_ids": [instance]}, 404) == "global/object-does-not-exist"


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"quantity": 1}, 400, "global/invalid-parameters"),
        ({"ssh_key_names": []}, 400, "global/invalid-parameters"),
        ({"ssh_key_names": ["ops", "other"]}, 400, "global/invalid-parameters"),
        ({"ssh_key_names": ["other"]}, 400, "global/object-does-not-exist"),
        ({"name": "x" * 65}, 400, "global/invalid-parameters"),
        ({"hostname": "-x"}, 400, "global/invalid-parameters"),
        ({"tags": [{"key": "Team", "value": ""}]}, 400, "global/invalid-parameters"),
        ({"image": {"family": "no-such"}}, 400, "global/object-does-not-exist"),
        ({"image": {"family": "a", "id": "b"}}, 400, "global/invalid-parameters"),
        ({"instance_type_name": "gpu_1x_none"}, 400, "global/invalid-parameters"),
        ({"region_name": "moon-1"}, 400, "global/invalid-parameters"),
        ({"file_system_names": ["none"]}, 400, "global/object-does-not-exist"),
        ({"firewall_rulesets": [{"id": "none"}]}, 400, "global/object-does-not-exist"),
        ({"user_data": "x" * 1_000_001}, 400, "global/invalid-parameters"),
    ],
)
def test_a_launch_that_cannot_be_makes_nothing(account: Account, fields: Any, status: int, code: str) -> None:
    assert account.code("POST", LAUNCHING, {**LAUNCH, **fields}, status) == code
    assert account.control("truth")["launched"] == 0


def test_capacity_is_listed_and_runs_out(account: Account) -> None:
    account.control("seed", {"capacity": {"gpu_1x_a10": {"us-east-1": 1}}})
    listed = account.call("GET", "/instance-types")["data"]["gpu_1x_a10"]
    assert [item["name"] for item in listed["regions_with_capacity_available"]] == ["us-east-1"]
    assert listed["instance_type"]["price_cents_per_hour"] == 129
    instance = account.launch()
    refusal = "instance-operations/launch/insufficient-capacity"
    assert account.code("POST", LAUNCHING, LAUNCH, 400) == refusal
    assert account.code("POST", LAUNCHING, {**LAUNCH, "region_name": "us-west-1"}, 400) == refusal
    account.control(f"instances/{instance}", {"status": "terminated"})
    account.launch()


def test_capacity_flaps_by_type_region_and_time() -> None:
    account = Account(flap=0.5)
    seen = set()
    for _ in range(10):
        account.clock.now += 300
        listed = account.call("GET", "/instance-types")["data"]["gpu_1x_a10"]["regions_with_capacity_available"]
        seen.add(tuple(item["name"] for item in listed))
    assert len(seen) > 3


def test_file_systems_bind_to_a_region(account: Account) -> None:
    made = account.control("seed", {"file_systems": [{"name": "models", "region": "us-west-1"}]})["data"]
    wrong = {**LAUNCH, "file_system_names": ["models"]}
    assert account.code("POST", LAUNCHING, wrong, 400) == "instance-operations/launch/file-system-in-wrong-region"
    instance = account.launch(region_name="us-west-1", file_system_names=["models"])
    seen = account.call("GET", f"/instances/{instance}")["data"]
    system = made["file_systems"]["models"]
    assert seen["file_system_mounts"] == [{"mount_point": "/lambda/nfs/models", "file_system_id": system}]
    assert account.code("DELETE", f"/filesystems/{system}", None, 400) == "filesystems/filesystem-in-use"
    mounts = [{"mount_point": "/data/models", "file_system_id": system}]
    both = account.launch(region_name="us-west-1", file_system_names=["models"], file_system_mounts=mounts)
    assert account.call("GET", f"/instances/{both}")["data"]["file_system_mounts"] == mounts


def test_hosts_that_a_test_lends_are_used_one_at_a_time(account: Account) -> None:
    account.control("seed", {"hosts": ["10.77.0.2", "10.77.0.3"]})
    first, second, third = account.launch(), account.launch(), account.launch()
    ips = {row["id"]: row["ip"] for row in account.control("truth")["instances"]}
    assert (ips[first], ips[second]) == ("10.77.0.2", "10.77.0.3")
    assert ips[third].startswith("203.0.113.")
    account.control(f"instances/{first}", {"status": "terminated"})
    fourth = account.launch()
    assert {row["id"]: row["ip"] for row in account.control("truth")["instances"]}[fourth] == "10.77.0.2"


def test_restart_and_rename(account: Account) -> None:
    instance = account.launch()
    body = {"instance_ids": [instance]}
    assert account.code("POST", "/instance-operations/restart", body, 409) == "global/conflict"
    account.clock.now += 300
    account.call("POST", "/instance-operations/restart", body)
    assert account.call("GET", f"/instances/{instance}")["data"]["status"] == "booting"
    assert account.call("POST", f"/instances/{instance}", {"name": "b"})["data"]["name"] == "b"


def test_user_data_is_kept_from_the_vendors_api(account: Account) -> None:
    instance = account.launch(user_data="#!/bin/sh\n")
    assert "user_data" not in account.call("GET", f"/instances/{instance}")["data"]
    assert "user_data" not in account.control("truth")["instances"][0]
    assert account.control("truth?user_data=1")["instances"][0]["user_data"] == "#!/bin/sh\n"


@patience(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.floats(0, 5000), st.floats(1, 5000)), min_size=1, max_size=6), st.integers(0, 9))
def test_bills_and_peak_follow_the_lives(lives: list[tuple[float, float]], seed: int) -> None:
    account = Account(seed=seed)
    for idle, life in lives:
        account.clock.now += idle
        instance = account.launch()
        account.clock.now += life
        account.control(f"instances/{instance}", {"status": "terminated"})
    truth = account.control("truth")
    assert truth["alive"] == 0
    assert truth["peak_cents_per_hour"] == 129
    assert truth["billed_seconds"] == pytest.approx(sum(life for _, life in lives), abs=1e-3)
    owed = sum(row["billed_seconds"] for row in truth["instances"]) * 129 / 3600
    assert owed <= truth["billed_cents"] < owed + len(lives) + 1
    account.clock.now += 10_000
    assert account.control("truth")["billed_cents"] == truth["billed_cents"]


def test_an_unhealthy_host_is_billed_until_it_is_terminated(account: Account) -> None:
    account.control("faults", [{"fault": {"kind": "unhealthy"}, "match": {"times": 1}}])
    instance = account.launch()
    account.clock.now += 3600
    assert account.call("GET", f"/instances/{instance}")["data"]["status"] == "unhealthy"
    assert account.control("truth")["billed_cents"] >= 129
