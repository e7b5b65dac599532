# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys, limits, faults, and the resources beside instances."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import msgspec
import pytest

from sophia.sandbox.lambda_cloud import API_KEY

from .conftest import LAUNCH, Account

LAUNCHING = "/api/v1/instance-operations/launch"


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (f"Bearer {API_KEY}", 200),
        ("Basic " + base64.b64encode(f"{API_KEY}:".encode()).decode(), 200),
        ("Bearer secret_other.key", 401),
        ("Basic nonsense", 401),
        ("", 401),
    ],
)
def test_who_is_let_in(account: Account, header: str, status: int) -> None:
    answer = account.send("GET", "/api/v1/instances", authorization=header)
    assert answer.status == status
    if status == 401:
        assert msgspec.json.decode(answer.body)["error"]["code"] == "global/invalid-api-key"


def test_a_request_a_second_and_a_launch_in_twelve(account: Account) -> None:
    assert account.send("GET", "/api/v1/regions").status == 200
    early = account.send("GET", "/api/v1/regions")
    assert early.status == 429
    assert early.headers["retry-after"] == "1"
    account.clock.now += 1
    assert account.send("POST", LAUNCHING, LAUNCH).status == 200
    account.clock.now += 11
    assert account.send("POST", LAUNCHING, LAUNCH).headers["retry-after"] == "1"
    account.clock.now += 1
    assert account.send("POST", LAUNCHING, LAUNCH).status == 200
    truth = account.control("truth")
    assert truth["rate_limit_violations"] == {"requests": 1, "launches": 1}
    assert truth["launched"] == 2


@pytest.mark.parametrize(
    ("fault", "delivery", "status", "made"),
    [
        ({"kind": "timeout"}, "never", 0, 0),
        ({"kind": "reset"}, "reset", 0, 0),
        ({"kind": "status", "status": 503}, "whole", 503, 0),
        ({"kind": "insufficient_capacity"}, "whole", 400, 0),
        ({"kind": "timeout_after_success"}, "never", 0, 1),
        ({"kind": "reset_after_success"}, "reset", 0, 1),
        ({"kind": "status_after_success", "status": 500}, "whole", 500, 1),
    ],
)
def test_what_a_fault_does_and_what_it_says(
    account: Account, fault: Any, delivery: str, status: int, made: int
) -> None:
    account.control("faults", [{"fault": fault, "match": {"path": "/launch", "times": 1}}])
    answer = account.send("POST", LAUNCHING, LAUNCH)
    assert (answer.delivery, answer.status) == (delivery, status)
    assert account.control("truth")["launched"] == made
    account.clock.now += 12
    assert account.send("POST", LAUNCHING, LAUNCH).status == 200


def test_a_stale_list_is_of_the_past_and_a_single_answer_is_not(account: Account) -> None:
    old = account.launch()
    account.clock.now += 100
    new = account.launch()
    account.call("POST", "/instance-operations/terminate", {"instance_ids": [old]})
    account.control("faults", [{"fault": {"kind": "stale", "seconds": 30}}])
    listed = account.call("GET", "/instances")["data"]
    assert [(item["id"], item["status"]) for item in listed] == [(old, "booting")]
    assert account.call("GET", f"/instances/{new}")["data"]["status"] == "booting"


def test_a_termination_that_is_accepted_and_does_not_happen(account: Account) -> None:
    instance = account.launch()
    account.control("faults", [{"fault": {"kind": "ignore_terminate"}, "match": {"times": 1}}])
    body = {"instance_ids": [instance]}
    account.call("POST", "/instance-operations/terminate", body)
    assert account.call("GET", f"/instances/{instance}")["data"]["status"] == "booting"
    account.call("POST", "/instance-operations/terminate", body)
    assert account.call("GET", f"/instances/{instance}")["data"]["status"] == "terminating"


def test_pages_of_instances() -> None:
    account = Account(page_size=2)
    made = [account.launch() for _ in range(5)]
    seen: list[str] = []
    page: dict[str, Any] = {"page_token": "0"}
    while "page_token" in page:
        page = account.call("GET", f"/instances?page_token={page['page_token']}")
        seen += [item["id"] for item in page["data"]]
    assert seen == made


def test_the_hyphen_of_file_systems(account: Account) -> None:
    body = {"name": "models", "region": "us-east-1"}
    system = account.call("POST", "/filesystems", body)["data"]
    assert account.code("POST", "/filesystems", body, 400) == "global/duplicate"
    assert account.code("GET", "/filesystems", None, 404) == "global/not-found"
    assert account.call("GET", "/file-systems")["data"] == [system]
    account.call("DELETE", f"/filesystems/{system['id']}")
    assert account.call("GET", "/file-systems")["data"] == []


def test_ssh_keys(account: Account) -> None:
    made = account.call("POST", "/ssh-keys", {"name": "made"})["data"]
    assert made["private_key"]
    assert made["public_key"].startswith("ssh-ed25519 ")
    assert [item["name"] for item in account.call("GET", "/ssh-keys")["data"]] == ["ops", "made"]
    assert all("private_key" not in item for item in account.call("GET", "/ssh-keys")["data"])
    account.call("DELETE", f"/ssh-keys/{made['id']}")
    assert account.code("DELETE", f"/ssh-keys/{made['id']}", None, 404) == "global/object-does-not-exist"


def test_firewall_rulesets(account: Account) -> None:
    rule = {"protocol": "tcp", "port_range": [22, 22], "source_network": "192.0.2.1"}
    made = account.call("POST", "/firewall-rulesets", {"name": "ssh", "region": "us-east-1", "rules": [rule]})["data"]
    assert made["rules"][0]["source_network"] == "192.0.2.1/32"
    instance = account.launch(firewall_rulesets=[{"id": made["id"]}])
    path = f"/firewall-rulesets/{made['id']}"
    assert account.call("GET", path)["data"]["instance_ids"] == [instance]
    assert account.code("DELETE", path, None, 400) == "firewall-rulesets/firewall-ruleset-in-use"
    icmp = {"protocol": "icmp", "port_range": [1, 2], "source_network": "0.0.0.0/0"}
    assert account.code("PATCH", path, {"rules": [icmp]}, 400) == "global/invalid-parameters"
    account.call("PUT", "/firewall-rules", {"data": [rule]})
    assert (
        account.call("GET", "/firewall-rulesets/global")["data"]["rules"]
        == account.call("GET", "/firewall-rules")["data"]
    )


def test_regions_images_and_audit(account: Account) -> None:
    regions = {item["name"] for item in account.call("GET", "/regions")["data"]}
    images = account.call("GET", "/images")["data"]
    assert {item["region"]["name"] for item in images} == regions
    account.launch()
    assert account.call("GET", "/audit-events")["data"][0]["action"] == "POST /instance-operations/launch"


def test_reset_forgets(account: Account) -> None:
    account.launch()
    account.control("reset", {})
    assert account.control("truth")["launched"] == 0


def test_over_a_wire(served: str) -> None:
    with httpx.Client(base_url=served, headers={"Authorization": f"Bearer {API_KEY}"}, timeout=10) as client:
        client.post("/_sandbox/seed", json={"ssh_keys": {"ops": "ssh-ed25519 AAAA"}}).raise_for_status()
        assert client.get("/api/v1/instances").json() == {"data": []}
        rules = [
            {"fault": {"kind": "reset_after_success"}, "match": {"path": "/launch", "times": 1}},
            {"fault": {"kind": "timeout_after_success"}, "match": {"path": "/launch", "times": 1}},
        ]
        client.post("/_sandbox/faults", json=rules).raise_for_status()
        with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
            client.post(LAUNCHING, json=LAUNCH)
        with pytest.raises(httpx.ReadTimeout):
            client.post(LAUNCHING, json=LAUNCH, timeout=0.2)
        assert len(client.get("/api/v1/instances").json()["data"]) == 2
        large = client.post(LAUNCHING, content=b" " * (3 << 20))
        assert large.status_code == 413
